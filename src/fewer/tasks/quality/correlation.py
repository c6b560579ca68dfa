"""How well scores agree with opinions: rank and linear correlation, and pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewer.core.errors import FewerError

__all__ = ["average_ranks", "correlations", "pair_accuracy", "pearson", "spearman"]


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of their ranks.

    Examples
    --------
    >>> average_ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Linear correlation (PLCC), without any fit before.

    Raises
    ------
    FewerError
        With fewer than two values or without any spread.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise FewerError(f"a correlation needs two lists of the same length, 2 at least; given {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise FewerError("a correlation needs finite numbers; leave missing scores out")
    # the mean of equal values may be off by a rounding, so that their spread is no exact 0
    if np.all(x == x[0]) or np.all(y == y[0]):
        raise FewerError("a correlation needs scores that differ; these are all alike")
    x, y = _centred(x), _centred(y)
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def _centred(values: np.ndarray) -> np.ndarray:
    """Distances from the mean, in parts of the largest one: squares neither overflow nor vanish."""
    values = values / np.abs(values).max()
    off = values - values.mean()
    return off / np.abs(off).max()


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation (SRCC).

    Raises
    ------
    FewerError
        As :func:`pearson` does.

    Examples
    --------
    >>> spearman(np.array([1.0, 2.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    1.0
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):  # NaN would get a rank, as if it were the largest score
        raise FewerError("a correlation needs finite numbers; leave missing scores out")
    return pearson(average_ranks(x), average_ranks(y))


def correlations(
    scores: np.ndarray, opinions: np.ndarray, groups: Sequence[str] | np.ndarray | None = None
) -> dict[str, float]:
    """SRCC and PLCC; with groups, such as the two halves of CGIQA-6K, the mean over the groups.

    Examples
    --------
    >>> correlations(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    {'srcc': 1.0, 'plcc': 1.0}
    """
    scores, opinions = np.asarray(scores, float), np.asarray(opinions, float)
    names = np.zeros(len(scores), int) if groups is None else np.asarray(groups)
    found = []
    for name in np.unique(names):
        of = names == name
        found.append((spearman(scores[of], opinions[of]), pearson(scores[of], opinions[of])))
    srcc, plcc = np.mean(found, 0)
    return {"srcc": float(srcc), "plcc": float(plcc)}


def pair_accuracy(scores: dict[str, float], pairs: Sequence[tuple[str, str]]) -> float:
    """Share of pairs (better, worse) that the scores put in this order; a tie counts half.

    Examples
    --------
    >>> pair_accuracy({"a": 2.0, "b": 1.0}, [("a", "b"), ("b", "a")])
    0.5
    """
    if not pairs:
        raise FewerError("there are no pairs to compare")
    right = [float(scores[a] > scores[b]) + 0.5 * float(scores[a] == scores[b]) for a, b in pairs]
    return sum(right) / len(right)
