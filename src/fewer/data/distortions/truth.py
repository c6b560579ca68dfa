"""Distort an image by a recipe, globally or in one region, and keep the truth of what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.data.distortions.families import FAMILIES, STAGES, Family
from fewer.data.distortions.filters import gaussian

__all__ = ["PLACES", "Applied", "Truth", "coverage", "distort", "draw_recipe", "family", "overall_level"]

PLACES = ("upper left", "upper right", "lower left", "lower right", "centre", "left half", "right half")
"""Regions of local distortions."""


@dataclass(frozen=True)
class Applied:
    """One distortion: its family, its severity 1 to 5, and the region, empty for the whole image."""

    family: str
    severity: int
    place: str = ""

    def __post_init__(self) -> None:
        FAMILIES[self.family]
        if not 1 <= self.severity <= 5:
            raise FewerError(f"severity {self.severity} of {self.family}: 1 to 5 are possible")
        if self.place and self.place not in PLACES:
            raise FewerError(f"unknown region {self.place!r}; known are {', '.join(PLACES)}")


@dataclass(frozen=True)
class Truth:
    """What was done to an image.

    Attributes
    ----------
    image
        Name of the result.
    source
        Name of the photo that it was made from.
    applied
        In camera order; empty for the photo as it was.
    content
        What the photo shows, where it is known.
    """

    image: str
    source: str
    applied: tuple[Applied, ...] = ()
    content: str = "scene"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "applied": [asdict(one) for one in self.applied]}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Truth:
        """Read :meth:`to_dict` back.

        Raises
        ------
        FewerError
            When something is missing or unknown.

        Examples
        --------
        >>> made = Truth("b.png", "a.png", (Applied("jpeg", 3),))
        >>> Truth.of(made.to_dict()) == made
        True
        """
        try:
            applied = tuple(Applied(str(a["family"]), int(a["severity"]), str(a["place"])) for a in values["applied"])
            return cls(str(values["image"]), str(values["source"]), applied, str(values.get("content", "scene")))
        except (KeyError, TypeError, ValueError) as error:
            raise FewerError(f"this is no record of a distortion ({error!r})") from None


def family(name: str) -> Family:
    """The row of a family, with its stage, aspect and word.

    Examples
    --------
    >>> family("jpeg").aspect
    'compression'
    """
    row = FAMILIES[name]
    assert isinstance(row, Family)
    return row


def overall_level(truth: Truth) -> float:
    """Simulated opinion, 1 (bad) to 5 (excellent).

    Modelled, not measured: each distortion takes 0.8 of its severity away, in a region half of that; further ones count
    half, since people judge by the worst defect.

    Examples
    --------
    >>> overall_level(Truth("a", "a")), overall_level(Truth("a", "a", (Applied("jpeg", 5),)))
    (5.0, 1.0)
    """
    harms = sorted((0.8 * one.severity * (0.5 if one.place else 1.0) for one in truth.applied), reverse=True)
    return max(1.0, 5.0 - sum(harm * 0.5**place for place, harm in enumerate(harms)))


def distort(pixels: np.ndarray, applied: Sequence[Applied], seed: int = 0) -> np.ndarray:
    """Apply distortions in camera order, whatever their order in the list.

    Parameters
    ----------
    pixels
        uint8 (height, width, 3).
    applied
        What to do. A region is blended softly over a sixteenth of the shorter side.
    seed
        Of noise, directions and places.

    Returns
    -------
    array
        uint8 of the same shape.

    Examples
    --------
    >>> image = np.full((32, 32, 3), 128, np.uint8)
    >>> int(distort(image, [Applied("darken", 3)]).max()) < 128
    True
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise FewerError(f"a picture of 8 bits with three channels is needed; given {pixels.dtype} {pixels.shape}")
    values = pixels.astype(np.float32) / 255
    ordered = sorted(enumerate(applied), key=lambda pair: STAGES.index(family(pair[1].family).stage))
    for place, one in ordered:
        rng = np.random.default_rng([seed, place])
        changed = family(one.family).run(values, one.severity, rng)
        if one.place:
            mask = _mask(values.shape[:2], one.place)
            changed = mask * changed + (1 - mask) * values
        values = changed
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _mask(shape: tuple[int, ...], place: str) -> np.ndarray:
    height, width = shape
    rows, columns = slice(None), slice(None)
    if place == "centre":
        rows, columns = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
    if "upper" in place:
        rows = slice(0, height // 2)
    if "lower" in place:
        rows = slice(height // 2, None)
    if "left" in place:
        columns = slice(0, width // 2)
    if "right" in place:
        columns = slice(width // 2, None)
    mask = np.zeros((height, width, 1), np.float32)
    mask[rows, columns] = 1
    return gaussian(mask, max(1.0, min(height, width) / 48))


def coverage(place: str, grid: int, side: int) -> np.ndarray:
    """Share of each cell of a square image that a distortion in a region touches.

    Parameters
    ----------
    place
        One of :data:`PLACES`, or empty for the whole image.
    grid, side
        Cells per side, pixels per side.

    Examples
    --------
    >>> coverage("left half", 2, 32).round(1).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    mask = _mask((side, side), place)[:, :, 0] if place else np.ones((side, side), np.float32)
    edges = np.linspace(0, side, grid + 1).astype(int)
    rows = np.add.reduceat(mask, edges[:-1], 0) / np.diff(edges)[:, None]
    return np.add.reduceat(rows, edges[:-1], 1) / np.diff(edges)


def draw_recipe(
    rng: np.random.Generator,
    families: Sequence[str] | None = None,
    *,
    most: int = 3,
    local: float = 0.37,
    clean: float = 0.1,
) -> tuple[Applied, ...]:
    """Random distortions of one image, no two of one aspect.

    Parameters
    ----------
    rng
        Seeded by the caller.
    families
        Names to draw from; all by default.
    most
        Largest number at once; fewer are more frequent.
    local
        Share of distortions that touch one region; 0.37 is that of the in-context questions of Q-Bench.
    clean
        Share of images that stay as they are.
    """
    if rng.random() < clean:
        return ()
    names = list(families if families is not None else FAMILIES)
    count = int(rng.choice(np.arange(1, most + 1), p=_falling(most)))
    chosen: list[Applied] = []
    aspects: set[str] = set()
    for name in rng.permutation(names).tolist():
        if family(name).aspect in aspects or len(chosen) == count:
            continue
        place = str(rng.choice(PLACES)) if rng.random() < local else ""
        chosen.append(Applied(name, int(rng.integers(1, 6)), place))
        aspects.add(family(name).aspect)
    return tuple(sorted(chosen, key=lambda one: list(FAMILIES).index(one.family)))


def _falling(most: int) -> np.ndarray:
    weights = 0.5 ** np.arange(most)
    return weights / weights.sum()
