"""Simulated modalities: magnetic resonance images computed from label maps, so that masks are exact.

The anatomy may be real. A benchmark of adaptation must not be solvable by a curve of the source's intensities. So each
structure has relaxation times of its own (the pallidum is dark in T2 for its iron, thalamus and caudate differ), source
and target have different subjects, resolution, noise and gain, small structures are there, and lesions are rarer in the
target. What is measured on these images is measured on simulated data, and must be called so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.tasks.segment.files import Picture, write_picture

__all__ = [
    "CLASSES",
    "FREESURFER",
    "SEQUENCES",
    "TISSUES",
    "SpinEcho",
    "phantom",
    "render",
    "signal",
    "tissues_of",
    "write_domain",
]

TISSUES = (
    "air", "scalp", "bone", "csf", "grey", "white", "thalamus", "caudate", "putamen", "pallidum", "lesion", "cochlea",
)  # fmt: skip
"""Values of a tissue map, in their order."""

# proton density, T1 and T2 in seconds: of the order of published values at 1.5 T, and chosen here
_PHYSICS = np.array([
    (0.0, 1.0, 0.01), (0.9, 0.3, 0.08), (0.1, 0.3, 0.005), (1.0, 4.0, 1.5), (0.82, 1.33, 0.11), (0.70, 0.83, 0.08),
    (0.78, 1.10, 0.088), (0.82, 1.25, 0.098), (0.80, 1.18, 0.084), (0.74, 0.98, 0.056), (0.95, 0.45, 0.40),
    (0.98, 3.0, 0.9),
])  # fmt: skip

CLASSES = {"background": 0, "ventricle": 1, "deep grey": 2, "lesion": 3, "cochlea": 4}
"""What is to be segmented; csf outside of ventricles is background."""

FREESURFER: Mapping[int, str] = {
    **dict.fromkeys((2, 7, 16, 28, 41, 46, 60, 85), "white"),
    **dict.fromkeys((3, 8, 17, 18, 26, 42, 47, 53, 54, 58), "grey"),
    **dict.fromkeys((4, 5, 14, 15, 24, 43, 44, 72, 530), "csf"),
    **dict.fromkeys((10, 49), "thalamus"),
    **dict.fromkeys((11, 50), "caudate"),
    **dict.fromkeys((12, 51), "putamen"),
    **dict.fromkeys((13, 52), "pallidum"),
    **dict.fromkeys((30, 62, 136, 137, 163, 164), "white"),
    **dict.fromkeys((25, 57), "white"),
}
"""Numbers of FreeSurfer's labels; those above 500 (outside of the brain) become scalp, every other one air.

Lesions of the subjects themselves (25, 57) count as healthy white matter, because lesions are drawn here.
"""

_VENTRICLES = (4, 5, 14, 15, 43, 44, 72)


@dataclass(frozen=True)
class SpinEcho:
    """How a domain is imaged.

    Attributes
    ----------
    repetition, echo
        TR and TE of a spin echo, in seconds.
    blur
        Deviation of the point spread along each axis, in pixels.
    noise
        Of the Rician noise, as a share of the brightest tissue.
    gain
        Largest logarithm of the smooth gain.
    lesions
        Share of subjects with a lesion.
    """

    repetition: float
    echo: float
    blur: tuple[float, ...]
    noise: float
    gain: float
    lesions: float


SEQUENCES = {
    "t1": SpinEcho(0.5, 0.015, (0.4, 0.4, 0.4), 0.03, 0.2, 0.8),
    "t2": SpinEcho(4.0, 0.1, (0.3, 0.8, 0.6), 0.05, 0.4, 0.5),
}
"""Source-like and target-like."""


def signal(sequence: SpinEcho, physics: np.ndarray) -> np.ndarray:
    """Spin-echo signal ``PD (1 - exp(-TR / T1)) exp(-TE / T2)`` of rows ``(PD, T1, T2)``.

    Examples
    --------
    >>> signal(SEQUENCES["t2"], np.array([[1.0, 4.0, 1.5], [0.7, 0.83, 0.08]])).round(2).tolist()
    [0.59, 0.2]
    """
    density, one, two = physics.T
    return density * (1 - np.exp(-sequence.repetition / one)) * np.exp(-sequence.echo / two)


def tissues_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tissue map and class map of a map of FreeSurfer's labels.

    Examples
    --------
    >>> tissue, mask = tissues_of(np.array([0, 4, 13, 2]))
    >>> [TISSUES[i] for i in tissue], mask.tolist()
    (['air', 'csf', 'pallidum', 'white'], [0, 1, 2, 0])
    """
    tissue = np.where(labels > 500, TISSUES.index("scalp"), 0).astype(np.uint8)
    for value, name in FREESURFER.items():
        tissue[labels == value] = TISSUES.index(name)
    mask = np.isin(labels, _VENTRICLES).astype(np.uint8)
    mask[(tissue >= TISSUES.index("thalamus")) & (tissue <= TISSUES.index("pallidum"))] = CLASSES["deep grey"]
    return tissue, mask


def _ball(
    shape: tuple[int, ...], centre: Sequence[float] | np.ndarray, radius: Sequence[float] | np.ndarray
) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    parts = [((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radius, strict=True)]
    return np.sum(np.broadcast_arrays(*parts), axis=0) <= 1


def phantom(rng: np.random.Generator, shape: tuple[int, ...] = (64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """A drawn head of ellipses, where no real label map is at hand: tissue map and class map."""
    n = np.array(shape)
    middle = (n - 1) / 2 + rng.uniform(-0.03, 0.03, len(n)) * n
    size = n * rng.uniform(0.40, 0.45, len(n))
    tissue, mask = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)

    def put(name: str, at: Sequence[float], scale: Sequence[float], value: int = 0) -> None:
        at = [*at, 0.0][: len(n)]
        scale = [*scale, 0.5][: len(n)]
        where = _ball(shape, middle + np.array(at) * size, np.maximum(np.array(scale) * size, 0.9))
        tissue[where], mask[where] = TISSUES.index(name), value

    wobble = lambda: rng.uniform(0.9, 1.1)  # noqa: E731
    for name, scale in (("scalp", 1.0), ("bone", 0.93), ("csf", 0.86), ("grey", 0.82), ("white", 0.70)):
        put(name, (0, 0), (scale, scale))
    for side in (-1, 1):
        put("caudate", (-0.28, side * 0.22), (0.16 * wobble(), 0.08 * wobble()), CLASSES["deep grey"])
        put("putamen", (-0.05, side * 0.40), (0.22 * wobble(), 0.08 * wobble()), CLASSES["deep grey"])
        put("pallidum", (0.0, side * 0.27), (0.12 * wobble(), 0.06 * wobble()), CLASSES["deep grey"])
        put("thalamus", (0.22, side * 0.16), (0.15 * wobble(), 0.11 * wobble()), CLASSES["deep grey"])
        put("csf", (-0.22, side * 0.09), (0.24 * wobble(), 0.06 * wobble()), CLASSES["ventricle"])
    return tissue, mask


def _add(tissue: np.ndarray, mask: np.ndarray, sequence: SpinEcho, rng: np.random.Generator) -> None:
    """A lesion in white matter for a share of the subjects, and two cochlea-like blobs, in place."""
    brain = np.argwhere(tissue >= TISSUES.index("csf"))
    low, high = brain.min(0), brain.max(0)
    centre = (low + high) / 2
    for side in (-1, 1):
        at = centre.copy()
        at[0] += 0.30 * (high[0] - low[0]) + rng.uniform(-1, 1)
        at[1] += side * 0.33 * (high[1] - low[1]) + rng.uniform(-1, 1)
        where = _ball(tissue.shape, at, rng.uniform(1.2, 1.9, tissue.ndim))
        tissue[where], mask[where] = TISSUES.index("cochlea"), CLASSES["cochlea"]
    if rng.random() < sequence.lesions:
        white = np.argwhere(tissue == TISSUES.index("white"))
        at = white[int(rng.integers(len(white)))]
        where = _ball(tissue.shape, at, rng.uniform(2.5, 4.5, tissue.ndim)) & (tissue >= TISSUES.index("csf"))
        tissue[where], mask[where] = TISSUES.index("lesion"), CLASSES["lesion"]


def render(
    tissue: np.ndarray, mask: np.ndarray, sequence: SpinEcho, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """An image float32 of a subject, and its mask: lesion and cochlea are added, then all is imaged.

    Raises
    ------
    FewerError
        When the tissue map has no brain.
    """
    from scipy.ndimage import gaussian_filter, zoom

    if not (tissue == TISSUES.index("white")).any():
        raise FewerError("the tissue map has no white matter")
    tissue, mask = tissue.copy(), mask.copy()
    _add(tissue, mask, sequence, rng)
    physics = _PHYSICS * rng.normal(1, 0.04, _PHYSICS.shape).clip(0.85, 1.15)
    levels = signal(sequence, physics)
    image = levels[tissue] * (1 + 0.03 * gaussian_filter(rng.standard_normal(tissue.shape), 0.7))
    image = gaussian_filter(image, sequence.blur[: tissue.ndim])
    coarse = rng.uniform(-sequence.gain, sequence.gain, (4,) * tissue.ndim)
    image = image * np.exp(np.asarray(zoom(coarse, [n / 4 for n in tissue.shape], order=1)))
    real, imaginary = (sequence.noise * levels.max() * rng.standard_normal(tissue.shape) for _ in range(2))
    image = np.sqrt((image + real) ** 2 + imaginary**2)
    # what is outside of the head is masked, as tools for brains do it
    return np.where(tissue == 0, 0, image).astype(np.float32), mask


def write_domain(
    folder: str | Path,
    maps: Mapping[str, tuple[np.ndarray, np.ndarray]],
    sequence: SpinEcho,
    seed: int,
    *,
    masks: bool = True,
) -> Path:
    """Write a domain as ``images/NAME.nii.gz`` and ``masks/NAME.nii.gz`` with ``classes.json``.

    Parameters
    ----------
    maps
        Tissue map and class map of each subject.
    """
    root = Path(folder)
    (root / "images").mkdir(parents=True, exist_ok=True)
    for index, (name, (tissue, mask)) in enumerate(sorted(maps.items())):
        image, found = render(tissue, mask, sequence, np.random.default_rng([seed, index]))
        scaled = np.rint(4000 * image / image.max()).astype(np.int16)
        place = Picture(scaled[None], (2.0,) * image.ndim, spaced=True)
        write_picture(root / "images" / f"{name}.nii.gz", scaled, place)
        if masks:
            write_picture(root / "masks" / f"{name}.nii.gz", found, place)
    if masks:
        atomic_write_text(root / "classes.json", json.dumps(CLASSES))
    return root
