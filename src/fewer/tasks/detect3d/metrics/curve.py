"""Precision at equal steps of recall, with objects and detections that do not count, by the rules of KITTI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewer.tasks.detect3d.boxes import Floats

__all__ = ["Case", "precision_curve"]

COUNTS, IGNORED = 0, 1


@dataclass(frozen=True, eq=False)
class Case:
    """One scan: how much its detections overlap its objects, and which of them count.

    Attributes
    ----------
    overlap
        Shape (detections, objects).
    scores
        Of the detections.
    objects, detections
        0: counts; 1: neither right nor wrong. Those that play no part are left out of the case.
    """

    overlap: Floats
    scores: Floats
    objects: NDArray[np.integer]
    detections: NDArray[np.integer]


def precision_curve(cases: Sequence[Case], least: float, steps: int = 40) -> Floats:
    """Precision at ``steps + 1`` recalls from 0 to 1, each the best at that recall or beyond.

    The thresholds are the scores at which the recall passes its steps; at each of them detections and objects are
    matched anew, every object taking the detection that overlaps it most. An object that does not count may take a
    detection that would be wrong otherwise, and a detection that does not count is taken only where no other one is.

    Parameters
    ----------
    cases
        One for each scan.
    least
        Overlap that a match needs more than.
    steps
        Of the recall: 40 for KITTI, 50 for ONCE.

    Examples
    --------
    >>> one = Case(np.array([[0.9]]), np.array([0.8]), np.array([0]), np.array([0]))
    >>> precision_curve([one] * 4, 0.7, 4).tolist()  # four scores fill four of the five recalls
    [1.0, 1.0, 1.0, 1.0, 0.0]
    """
    total = sum(int((case.objects == COUNTS).sum()) for case in cases)
    curve = np.zeros(steps + 1)
    if not total:
        return curve
    near = [[np.flatnonzero(case.overlap[:, i] > least) for i in range(len(case.objects))] for case in cases]
    scores = np.sort(np.concatenate([_best_scores(case, found) for case, found in zip(cases, near, strict=True)]))[::-1]
    thresholds = _thresholds(scores, total, steps)
    for at, threshold in enumerate(thresholds[: steps + 1]):
        right = wrong = 0
        for case, found in zip(cases, near, strict=True):
            good, bad = _count(case, found, threshold)
            right, wrong = right + good, wrong + bad
        curve[at] = right / max(1, right + wrong)
    return np.maximum.accumulate(curve[::-1])[::-1]


def _best_scores(case: Case, near: list[NDArray[np.intp]]) -> list[float]:
    """Scores of right detections, every object taking the most confident one that is free."""
    taken = np.zeros(len(case.scores), dtype=bool)
    found = []
    for state, candidates in zip(case.objects, near, strict=True):
        free = candidates[~taken[candidates]]
        if not len(free):
            continue
        best = free[case.scores[free].argmax()]
        taken[best] = True
        if state == COUNTS and case.detections[best] == COUNTS:
            found.append(float(case.scores[best]))
    return found


def _thresholds(scores: Floats, total: int, steps: int) -> list[float]:
    found: list[float] = []
    recall = 0.0
    for i, score in enumerate(scores):
        here = (i + 1) / total
        following = (i + 2) / total if i + 1 < len(scores) else here
        # the score whose recall is nearest to the step
        if following - recall < recall - here and i + 1 < len(scores):
            continue
        found.append(float(score))
        recall += 1 / steps
    return found


def _count(case: Case, near: list[NDArray[np.intp]], threshold: float) -> tuple[int, int]:
    shown = case.scores >= threshold
    taken = np.zeros(len(case.scores), dtype=bool)
    right = 0
    for i, candidates in enumerate(near):
        free = candidates[shown[candidates] & ~taken[candidates]]
        if not len(free):
            continue
        sure = free[case.detections[free] == COUNTS]
        best = sure[case.overlap[sure, i].argmax()] if len(sure) else free[0]
        taken[best] = True
        right += bool(case.objects[i] == COUNTS and case.detections[best] == COUNTS)
    return right, int((shown & ~taken & (case.detections == COUNTS)).sum())
