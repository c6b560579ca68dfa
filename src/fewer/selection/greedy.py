"""Greedy coverage: which few images have a neighbour of theirs chosen for most of the pool?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fewer.selection.distance import squared_distances

__all__ = ["Kernel", "ball", "gaussian", "greedy_cover"]

Kernel = Callable[[np.ndarray], np.ndarray]
"""From squared distances to how well an image stands for another one, 0 to 1; may overwrite its argument."""

_WAVE = 128  # candidates whose gain is brought up to date at once


def ball(radius: float) -> Kernel:
    """1 within the radius, 0 outside.

    Examples
    --------
    >>> ball(2.0)(np.array([[1.0, 4.0, 9.0]])).tolist()
    [[1.0, 1.0, 0.0]]
    """
    return lambda squared: (squared <= radius**2).astype(np.float32)


def gaussian(width: float) -> Kernel:
    """``exp(-d^2 / (2 width^2))``.

    Examples
    --------
    >>> gaussian(1.0)(np.array([[0.0, 2.0]], np.float32)).round(3).tolist()
    [[1.0, 0.36800000071525574]]
    """

    def kernel(squared: np.ndarray) -> np.ndarray:
        squared *= -0.5 / max(width, 1e-12) ** 2
        return np.exp(squared, out=squared)

    return kernel


def greedy_cover(
    points: np.ndarray,
    weights: np.ndarray,
    kernel: Kernel,
    count: int,
    *,
    allowed: np.ndarray | None = None,
    covered: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose points one after the other, each the one that adds most to the weighted coverage of all points.

    The coverage ``sum_j weights[j] max_(i chosen) kernel(i, j)`` is submodular, so the gain of a point can only fall:
    an old gain is an upper bound, and is brought up to date only where it could be the largest (lazy greedy;
    Minoux, 1978). The choice is that of plain greedy, within ``1 - 1/e`` of the best coverage, in O(n) memory.

    Parameters
    ----------
    points
        [n, d] float32.
    weights
        [n], not negative.
    kernel
        :func:`ball` or :func:`gaussian`.
    count
        Points to choose, at most as many as are allowed.
    allowed
        [n] bool; all by default.
    covered
        [n] how well each point is covered already.
    rng
        Breaks ties, also those when everything is covered; the first point otherwise.

    Returns
    -------
    chosen, gains, covered
        [count] places, [count] what each one added, and [n] the coverage afterwards.

    Examples
    --------
    >>> line = np.array([[0.0], [1.0], [2.0], [9.0]], np.float32)
    >>> greedy_cover(line, np.ones(4), ball(1.0), 2)[0].tolist()
    [1, 3]
    """
    weights = np.asarray(weights, np.float32)
    covered = np.zeros(len(points), np.float32) if covered is None else np.asarray(covered, np.float32).copy()
    tie = np.zeros(len(points)) if rng is None else rng.random(len(points))
    free = np.ones(len(points), bool) if allowed is None else allowed.copy()
    gain = np.full(len(points), -1.0)

    def refresh(places: np.ndarray) -> None:
        for start in range(0, len(places), _WAVE):
            part = places[start : start + _WAVE]
            table = kernel(squared_distances(points[part], points))
            table -= covered
            np.maximum(table, 0, out=table)
            gain[part] = table @ weights

    refresh(np.flatnonzero(free))
    stamp = np.zeros(len(points), np.int64)  # how many were chosen when the gain was right
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < count and free.any():
        now, wave = len(chosen), 16
        while True:
            places = np.flatnonzero(free)
            if wave < len(places):
                places = places[np.argpartition(gain[places], -wave)[-wave:]]
            stale = places[stamp[places] < now]
            if not len(stale):
                break
            refresh(stale)
            stamp[stale] = now
            wave = min(2 * wave, _WAVE)
        best = int(places[np.lexsort((tie[places], gain[places]))[-1]])
        chosen.append(best)
        gains.append(max(float(gain[best]), 0.0))
        free[best] = False
        np.maximum(covered, kernel(squared_distances(points[[best]], points))[0], out=covered)
    return np.array(chosen, np.int64), np.array(gains), covered
