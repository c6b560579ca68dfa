"""Average precision by the rules of KITTI's object benchmark (Geiger, Lenz and Urtasun, CVPR 2012)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.metrics.curve import Case, precision_curve
from fewer.tasks.detect3d.overlap import bev_iou, box_iou

__all__ = ["DIFFICULTIES", "OVERLAPS", "has_pictures", "kitti_ap", "overlap_of"]

Metric = Literal["3d", "bev"]

DIFFICULTIES: dict[str, tuple[float, int, float]] = {
    "easy": (40.0, 0, 0.15),
    "moderate": (25.0, 1, 0.30),
    "hard": (25.0, 2, 0.50),
}
"""Least height in the image (pixels), greatest occlusion level, greatest truncation."""

OVERLAPS: dict[str, float] = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
"""Overlap that a match needs; 0.5 for classes that are not listed."""

_NEIGHBOURS = {"Car": ("Van",), "Pedestrian": ("Person_sitting",)}


def overlap_of(name: str) -> float:
    """Overlap that a match of a class needs, whichever letters of its name are large.

    Examples
    --------
    >>> overlap_of("car"), overlap_of("bus")
    (0.7, 0.5)
    """
    return OVERLAPS.get(name.capitalize(), 0.5)


def has_pictures(truths: Sequence[Objects]) -> bool:
    """Whether the labels of a set have boxes in an image, from which KITTI's difficulties follow.

    Examples
    --------
    >>> has_pictures([Objects()])
    False
    """
    return any(truth.image is not None for truth in truths)


def kitti_ap(
    truths: Sequence[Objects],
    found: Sequence[Objects],
    name: str,
    *,
    difficulty: str = "moderate",
    metric: Metric = "3d",
    overlap: float | None = None,
    reach: Sequence[float] | None = None,
) -> Mapping[str, float]:
    """AP of one class at 11 and at 40 steps of recall.

    Objects of a neighbouring class, and objects too small, hidden or cut for the difficulty, are neither right nor
    wrong, and so are detections that are too small in the image. Data without KITTI's image boxes has one difficulty:
    everything counts in it, detections that no camera would see, too.

    Parameters
    ----------
    truths, found
        Of each scan. Detections need scores, and the image boxes of KITTI if small ones are to be left out.
    name
        Class.
    difficulty
        ``easy``, ``moderate`` or ``hard``.
    metric
        Overlap in space, or from above.
    overlap
        By default that of :func:`overlap_of`.
    reach
        ``x y z`` from and to: objects and detections outside, which a network with this grid cannot find, do not
        count. None, as in the benchmark, counts all.

    Returns
    -------
    mapping
        ``R11`` and ``R40`` in percent, and ``objects``, the number that count.

    Examples
    --------
    >>> box = np.array([[10, 0, 0, 4, 2, 1.5, 0.0]])
    >>> scores = kitti_ap([Objects(box, ("Car",))] * 50, [Objects(box, ("Car",), np.array([0.9]))] * 50, "Car")
    >>> round(scores["R40"], 6), scores["objects"]
    (100.0, 50.0)
    """
    least = overlap_of(name) if overlap is None else overlap
    if not has_pictures(truths):
        found = [replace(one, image=None) for one in found]
    cases = [_case(t, f, name, difficulty, metric, reach) for t, f in zip(truths, found, strict=True)]
    curve = precision_curve(cases, least, 40)
    count = sum(int((case.objects == 0).sum()) for case in cases)
    return {"R11": 100 * float(curve[::4].mean()), "R40": 100 * float(curve[1:].mean()), "objects": float(count)}


def _outside(boxes: Floats, reach: Sequence[float] | None) -> NDArray[np.bool_]:
    if reach is None:
        return np.zeros(len(boxes), dtype=bool)
    low, high = np.array(reach[:2]), np.array(reach[3:5])
    return np.logical_not(((boxes[:, :2] >= low) & (boxes[:, :2] < high)).all(axis=1))


def _case(
    truth: Objects, found: Objects, name: str, difficulty: str, metric: Metric, reach: Sequence[float] | None
) -> Case:
    height, hidden, cut = DIFFICULTIES[difficulty]
    there = ~np.isnan(truth.boxes).any(1) if len(truth) else np.zeros(0, dtype=bool)
    truth = truth.take(there).of([name, *_NEIGHBOURS.get(name, ())])
    own = np.array([one == name for one in truth.classes], dtype=bool)
    hard = ~own | _outside(truth.boxes, reach)
    if truth.image is not None:
        hard |= truth.image[:, 3] - truth.image[:, 1] <= height
    if truth.occlusion is not None:
        hard |= truth.occlusion > hidden
    if truth.truncation is not None:
        hard |= truth.truncation > cut
    found = found.of([name])
    small = _outside(found.boxes, reach)
    if found.image is not None:
        small |= found.image[:, 3] - found.image[:, 1] < height
    measure = box_iou if metric == "3d" else bev_iou
    scores = np.ones(len(found)) if found.scores is None else found.scores
    return Case(measure(found.boxes, truth.boxes), scores, hard.astype(int), small.astype(int))
