"""How well one mask fits another: Dice, Jaccard, and surface distances in millimetres, for one structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewer.core.errors import FewerError

__all__ = ["Score", "Status", "score_case", "score_structure", "surface_distances"]

Status = Literal["found", "missed", "spurious", "absent"]


@dataclass(frozen=True)
class Score:
    """One structure (one class in one case), predicted against the reference.

    Attributes
    ----------
    case, structure
        Names.
    status
        ``found``: in both. ``missed``: only in the reference. ``spurious``: only in the prediction. ``absent``: in
        neither.
    true_positive, false_positive, false_negative
        Voxels.
    dice, jaccard
        0 to 1; None unless found.
    hd95
        The 95th percentile of the distances from one surface to the other, the larger of both directions, in mm; None
        unless found.
    assd
        Mean distance between the surfaces over both directions together, in mm; None unless found.
    """

    case: str
    structure: str
    status: Status
    true_positive: int
    false_positive: int
    false_negative: int
    dice: float | None = None
    jaccard: float | None = None
    hd95: float | None = None
    assd: float | None = None


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each surface voxel to the nearest one of the other mask.

    A voxel belongs to the surface if a direct neighbour (4 in 2-D, 6 in 3-D) is outside of the mask; the edge of the
    image counts as outside.

    Parameters
    ----------
    prediction, reference
        Boolean masks of one shape, neither empty.
    spacing
        Millimetres per voxel along each axis.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        From the prediction's surface, and from the reference's; mm.

    Examples
    --------
    >>> a, b = np.zeros((5, 5), bool), np.zeros((5, 5), bool)
    >>> a[2, 1] = b[2, 3] = True
    >>> [d.tolist() for d in surface_distances(a, b, (1.0, 0.5))]
    [[1.0], [1.0]]
    """
    try:
        from scipy.ndimage import binary_erosion, distance_transform_edt
    except ImportError as error:
        raise FewerError("surface distances need scipy: pip install 'fewer[medical]'") from error

    # beyond the box of both masks there is no surface
    either = np.argwhere(prediction | reference)
    box = tuple(slice(low, high + 1) for low, high in zip(either.min(0), either.max(0), strict=True))
    edges = [mask[box] & ~np.asarray(binary_erosion(mask[box]), dtype=bool) for mask in (prediction, reference)]
    found = []
    for own, other in (edges, edges[::-1]):
        found.append(np.asarray(distance_transform_edt(~other, sampling=tuple(spacing)))[own])
    return found[0], found[1]


def score_structure(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float],
    *,
    case: str = "",
    structure: str = "",
    distances: bool = True,
) -> Score:
    """Score one structure.

    Parameters
    ----------
    prediction, reference
        Boolean masks of one shape ``(*space)``.
    spacing
        Millimetres per voxel along each axis.
    case, structure
        Names for the result.
    distances
        Whether to compute surface distances, which take longest.

    Examples
    --------
    >>> mask = np.zeros((4, 4), bool)
    >>> mask[1:3, 1:3] = True
    >>> score_structure(mask, mask, (1.0, 1.0)).dice
    1.0
    >>> score_structure(~mask & False, mask, (1.0, 1.0)).status
    'missed'
    """
    if prediction.shape != reference.shape:
        raise FewerError(f"{case or 'a prediction'} has the shape {prediction.shape}, its mask {reference.shape}")
    hits = int((prediction & reference).sum())
    extra, lost = int(prediction.sum()) - hits, int(reference.sum()) - hits
    counts = (hits, extra, lost)
    if hits + lost == 0:
        return Score(case, structure, "spurious" if extra else "absent", *counts)
    if hits + extra == 0:
        return Score(case, structure, "missed", *counts)
    dice, jaccard = 2 * hits / (2 * hits + extra + lost), hits / (hits + extra + lost)
    if not distances:
        return Score(case, structure, "found", *counts, dice, jaccard)
    ours, theirs = surface_distances(prediction, reference, spacing)
    hd95 = max(float(np.percentile(ours, 95)), float(np.percentile(theirs, 95)))
    assd = float((ours.sum() + theirs.sum()) / (len(ours) + len(theirs)))
    return Score(case, structure, "found", *counts, dice, jaccard, hd95, assd)


def score_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    classes: Sequence[str],
    spacing: Sequence[float],
    *,
    case: str = "",
    distances: bool = True,
) -> list[Score]:
    """Score every class of a case but the background.

    Parameters
    ----------
    prediction, reference
        Class indices, shape ``(*space)``.
    classes
        Names in the order of the indices; the first is the background.

    Examples
    --------
    >>> mask = np.array([[0, 1], [2, 2]])
    >>> [score.dice for score in score_case(mask, mask, ["background", "a", "b"], (1.0, 1.0))]
    [1.0, 1.0]
    """
    return [
        score_structure(
            prediction == index, reference == index, spacing, case=case, structure=name, distances=distances
        )
        for index, name in enumerate(classes)
        if index
    ]
