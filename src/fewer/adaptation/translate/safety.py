"""Checks of a translator before its images may train: it must neither invent nor delete structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewer.adaptation.problem import Problem
from fewer.adaptation.style import inside

__all__ = ["Checks", "Structure", "check_translation", "contrast_of", "edge_agreement"]

KEPT = 0.5
"""Share of a structure's contrast to its surroundings that must be left."""
EDGES = 0.35
"""Least correlation of edges before and after."""


@dataclass(frozen=True)
class Structure:
    """What a translation did to one class.

    Attributes
    ----------
    before, after
        Contrast to the surroundings, see :func:`contrast_of`: mean over source images that have it.
    prevalence
        Share of source images that have it.
    size
        Mean share of the image that it takes in these.
    kept
        Share of images in which its contrast is left.
    """

    name: str
    before: float
    after: float
    prevalence: float
    size: float
    kept: float


@dataclass(frozen=True)
class Checks:
    """Result of the checks of a translator.

    Attributes
    ----------
    structures
        One per class but the background.
    edges
        Correlation of edge maps before and after, mean over images.
    invented
        Share of what is strong edge after the translation, away from source edges.
    mean, deviation
        Of intensities: ``[translated, target]``.
    """

    structures: tuple[Structure, ...]
    edges: float
    invented: float
    mean: tuple[float, float]
    deviation: tuple[float, float]

    @property
    def lost(self) -> list[str]:
        """Structures that were visible before and are not afterwards."""
        return [s.name for s in self.structures if s.prevalence > 0 and s.kept < KEPT]

    @property
    def safe(self) -> bool:
        """Whether its images may train."""
        finite = all(np.isfinite([*self.mean, *self.deviation, self.edges]))
        return finite and not self.lost and self.edges >= EDGES and self.invented <= 0.5

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        told = f"edges agree {self.edges:.2f}, new edges {self.invented:.0%}"
        if self.lost:
            return f"it deletes {', '.join(self.lost)} ({told})"
        if self.invented > 0.5:
            return f"it invents structures ({told})"
        return f"structures are kept ({told})" if self.safe else f"it does not keep the anatomy ({told})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"safe": self.safe, "sentence": self.sentence, **asdict(self)}


def contrast_of(image: Tensor, mask: Tensor) -> float | None:
    """Difference of the means inside of a structure and in a rim around it, in units of the image's deviation.

    Examples
    --------
    >>> image = torch.zeros(1, 9, 9); image[0, 3:6, 3:6] = 1
    >>> round(contrast_of(image, image[0] > 0), 2) > 1
    True
    """
    from scipy.ndimage import binary_dilation

    own = mask.numpy()
    if not own.any():
        return None
    rim = binary_dilation(own, iterations=2) & ~own
    if not rim.any():
        return None
    channel = image[0].numpy()
    scale = max(float(channel[inside(image[0]).numpy()].std()), 1e-6)
    return abs(float(channel[own].mean() - channel[rim].mean())) / scale


def _gradient(image: Tensor) -> np.ndarray:
    """Size of the gradient of the first channel; along an axis of one voxel nothing changes."""
    channel = image[0].double().numpy()
    parts = [np.gradient(channel, axis=axis) for axis, size in enumerate(channel.shape) if size > 1]
    return np.sqrt(np.sum(np.square(parts), axis=0)) if parts else np.zeros(channel.shape)


def edge_agreement(image: Tensor, other: Tensor) -> tuple[float, float]:
    """Correlation of gradient sizes, and the share of the other's strong edges away from edges of the image.

    Strong is the upper twentieth; away is more than two voxels from an edge of the image's upper fifth.

    Examples
    --------
    >>> x = torch.rand(1, 16, 16)
    >>> edge_agreement(x, -x)
    (1.0, 0.0)
    """
    from scipy.ndimage import binary_dilation

    a, b = _gradient(image), _gradient(other)
    if a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0, 1.0
    near = np.asarray(binary_dilation(a >= np.quantile(a, 0.8), iterations=2), bool)
    strong = b >= np.quantile(b, 0.95)
    return round(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]), 6), float((strong & ~near).mean() / strong.mean())


def check_translation(problem: Problem, images: Sequence[Tensor]) -> Checks:
    """Look at translated source images beside the originals.

    A structure that stood out from its surroundings by a quarter of a deviation or more counts as deleted in an image
    where less than a tenth of that is left, or less than 0.05.

    Parameters
    ----------
    images
        Translations of ``problem.source``, in its order.
    """
    rows = []
    for value, name in enumerate(problem.classes):
        if not value:
            continue
        before, after, kept, sizes = [], [], [], []
        for new, (old, mask) in zip(images, problem.source, strict=True):
            assert mask is not None
            first, second = contrast_of(old, mask == value), contrast_of(new, mask == value)
            if first is None or second is None:
                continue
            before.append(first)
            after.append(second)
            sizes.append(float((mask == value).float().mean()))
            kept.append(first < 0.25 or second >= max(0.05, 0.1 * first))
        seen = len(before)
        means = [float(np.mean(x)) if seen else 0.0 for x in (before, after, sizes, kept)]
        rows.append(Structure(name, means[0], means[1], seen / len(images), means[2], means[3]))
    both = [edge_agreement(old, new) for new, (old, _) in zip(images, problem.source, strict=True)]
    there = torch.cat([image[0][inside(image[0])] for image in problem.target])
    here = torch.cat([image[0][inside(image[0])] for image in images])
    return Checks(
        tuple(rows),
        float(np.mean([edges for edges, _ in both])),
        float(np.mean([new for _, new in both])),
        (float(here.mean()), float(there.mean())),
        (float(here.std()), float(there.std())),
    )
