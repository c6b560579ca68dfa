"""How good a classifier is: accuracies with intervals, calibration, confusion; and whether its labels look permuted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["bootstrap", "calibration_error", "confusion_matrix", "doubt", "matching", "wilson"]

BINS = 15
"""Bins of the calibration error, as in Guo et al. (2017)."""
Z95 = 1.959964
_ENOUGH_PER_CLASS = 3
"""Fewer images of a class than this say nothing of a permutation."""


def wilson(hits: float, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927): sensible for few images and near 0 and 1.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(18, 20)]
    [0.699, 0.972]
    >>> wilson(0, 0)
    (0.0, 1.0)
    """
    if count == 0:
        return 0.0, 1.0
    share, square = hits / count, Z95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: np.ndarray, statistic, rounds: int = 500, seed: int = 0) -> tuple[float, float]:
    """95 % interval of any statistic of images: the percentiles of its values on resampled images.

    Parameters
    ----------
    values
        One row per image.
    statistic
        From such rows to a number.

    Examples
    --------
    >>> low, high = bootstrap(np.arange(100.0), np.mean)
    >>> low < 49.5 < high
    True
    """
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(rounds)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def calibration_error(rows: np.ndarray) -> float:
    """Expected calibration error (Guo et al., 2017): how far confidence is from accuracy, over bins of confidence.

    Parameters
    ----------
    rows
        [N, 2]: confidence of the first class, and 1 where it is right.

    Examples
    --------
    >>> calibration_error(np.array([[0.8, 1.0], [0.8, 1.0], [0.8, 1.0], [0.8, 1.0], [0.8, 0.0]])) < 1e-9
    True
    """
    bins = np.minimum((rows[:, 0] * BINS).astype(int), BINS - 1)
    # the sum over bins of |sum of (right - confidence)|, over all images
    gaps = np.bincount(bins, rows[:, 1] - rows[:, 0], BINS)
    return float(np.abs(gaps).sum() / max(len(rows), 1))


def confusion_matrix(labels: np.ndarray, guesses: np.ndarray, classes: int) -> np.ndarray:
    """Counts [label, guess].

    Examples
    --------
    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    return np.bincount(labels * classes + guesses, minlength=classes**2).reshape(classes, classes)


def matching(confusion: np.ndarray) -> np.ndarray:
    """For each label the guess that it would be under the best one-to-one mapping, found greedily.

    Largest counts first: where a permutation explains the guesses, its cells are the largest of their rows and columns,
    and greedy is exact.

    Examples
    --------
    >>> matching(np.array([[0, 9, 1], [8, 1, 0], [0, 0, 7]])).tolist()
    [1, 0, 2]
    """
    size = len(confusion)
    found = np.full(size, -1)
    taken = np.zeros(size, dtype=bool)
    # of equal counts a cell of the diagonal first, so that nothing is swapped without a reason
    score = confusion + 0.5 * np.eye(size)
    rows, columns = np.nonzero(score)  # an empty cell explains nothing; of 1,000 classes nearly all are empty
    order = np.argsort(-score[rows, columns], kind="stable")
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if found[row] < 0 and not taken[column]:
            found[row], taken[column] = column, True
    free = iter(np.flatnonzero(~taken))
    return np.array([next(free) if column < 0 else column for column in found])


def doubt(confusion: np.ndarray, classes: Sequence[str]) -> str:
    """One sentence if the class names seem to be mapped to the wrong outputs; else empty.

    A permutation is fitted to the very images that it is tested on, so it must explain much more than chance: its
    accuracy is corrected by what a permutation reaches on random guesses.

    Examples
    --------
    >>> doubt(np.array([[0, 9, 1], [0, 0, 10], [10, 0, 0]]), ["cat", "dog", "eel"])
    'accuracy is 0%, but 97% if the classes were in another order: cat is called dog, dog is called eel, ...'
    >>> doubt(np.diag([5, 5]), ["cat", "dog"])
    ''
    """
    seen = confusion.sum(1)
    total, size = int(seen.sum()), int((seen > 0).sum())
    if size < 2:
        return ""
    right = int(np.trace(confusion))
    order = matching(confusion) if total >= _ENOUGH_PER_CLASS * size else np.arange(len(confusion))
    other = int(confusion[np.arange(len(order)), order].sum())
    if other / total >= 0.5 and wilson(other, total)[0] > wilson(right, total)[1] + 0.2:
        swaps = [f"{classes[i]} is called {classes[j]}" for i, j in enumerate(order.tolist()) if i != j and seen[i]]
        told = ", ".join(swaps[:2]) + (", ..." if len(swaps) > 2 else "")
        return f"accuracy is {right / total:.0%}, but {other / total:.0%} if the classes were in another order: {told}"
    chance = 1 / len(confusion)
    if total >= 20 and wilson(right, total)[0] <= chance:
        return (
            f"accuracy is {right / total:.1%}, near chance ({chance:.1%}): are these the classes that the model knows, "
            "in its order? give their names in the order of its outputs: classes.txt"
        )
    return ""
