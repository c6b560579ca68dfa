"""Objects missed and boxes made up, by distance, at one confidence: what an average precision does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.overlap import box_iou

__all__ = ["EDGES", "Band", "agreement", "count_bands", "match_greedily"]

EDGES = (0.0, 15.0, 30.0, 45.0, np.inf)
"""Metres from the sensor."""


@dataclass(frozen=True)
class Band:
    """Counts of one class within a band of distance.

    Attributes
    ----------
    name
        Such as ``15-30 m``.
    objects, found, missed
        Annotated objects; those that a detection matches; the others.
    spurious
        Detections that match no object.
    """

    name: str
    objects: int
    found: int
    missed: int
    spurious: int

    def to_dict(self) -> dict[str, int | str]:
        """For JSON."""
        return asdict(self)


def match_greedily(truth: Floats, boxes: Floats, scores: Floats, least: float) -> np.ndarray:
    """Detection that each object takes, the most confident first, or -1; shape (objects,).

    Examples
    --------
    >>> box = np.array([[10, 0, 0, 4, 2, 1.5, 0.0]])
    >>> match_greedily(box, np.vstack([box + 9, box]), np.array([0.9, 0.5]), 0.5).tolist()
    [1]
    """
    taken = np.full(len(truth), -1)
    overlap = box_iou(boxes, truth)
    for j in np.argsort(-np.asarray(scores), kind="stable"):
        free = np.where(taken < 0, overlap[j], 0)
        if len(free) and free.max() >= least:
            taken[free.argmax()] = j
    return taken


def count_bands(
    truths: Sequence[Objects], found: Sequence[Objects], name: str, *, least: float = 0.5, score: float = 0.3
) -> list[Band]:
    """Found, missed and spurious by distance.

    Parameters
    ----------
    truths, found
        Of each scan.
    name
        Class.
    least
        Overlap in space that a match needs.
    score
        Detections below this confidence are not shown.
    """
    counts = np.zeros((len(EDGES) - 1, 3), dtype=int)
    for truth, guess in zip(truths, found, strict=True):
        t, f = truth.of([name]), guess.of([name])
        if f.scores is not None:
            f = f.take(f.scores >= score)
        scores = np.ones(len(f)) if f.scores is None else f.scores
        taken = match_greedily(t.boxes, f.boxes, scores, least)
        for box, j in zip(t.boxes, taken, strict=True):
            counts[_band(box), 0 if j >= 0 else 1] += 1
        for j in set(range(len(f))) - set(taken.tolist()):
            counts[_band(f.boxes[j]), 2] += 1
    names = [f"{a:g}-{b:g} m" if np.isfinite(b) else f"beyond {a:g} m" for a, b in pairwise(EDGES)]
    return [Band(n, int(r[0] + r[1]), int(r[0]), int(r[1]), int(r[2])) for n, r in zip(names, counts, strict=True)]


def _band(box: Floats) -> int:
    # what is infinitely far lies beyond the last edge too
    return min(int(np.searchsorted(EDGES, np.hypot(box[0], box[1]), side="right")), len(EDGES) - 1) - 1


def agreement(first: Sequence[Objects], second: Sequence[Objects], name: str, *, score: float = 0.3) -> list[Band]:
    """The same for two detectors: boxes of the first that the second finds again, loses, and those that it adds."""
    kept = [f if f.scores is None else f.take(f.scores >= score) for f in first]
    return count_bands(kept, second, name, score=score)
