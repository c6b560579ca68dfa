"""The plain methods: random, foreground-aware random, and greedy k-centre."""

from __future__ import annotations

import numpy as np

from fewer.core.errors import FewerError
from fewer.select.distance import Space, nearest, squared_distances
from fewer.select.pool import Pool, Selection, blocks

__all__ = ["select_foreground", "select_kcenter", "select_random"]

_WAVE = 2048  # images whose distance is brought up to date at once


def select_random(pool: Pool, count: int, seed: int = 0) -> Selection:
    """Choose uniformly at random: what every method must beat.

    Examples
    --------
    >>> len(select_random(Pool(np.zeros((9, 2), np.float32)), 4, seed=1).rows)
    4
    """
    rows = np.random.default_rng([seed, 1]).choice(pool.candidates(), count, replace=False)
    return Selection.of(rows, "drawn at random, every image with the same chance")


def select_foreground(pool: Pool, count: int, seed: int = 0) -> Selection:
    """Choose at random among images that show some foreground, and from the others only when those run out.

    Foreground is at least 1 % of the image: by predictions if there are any (class 0 is background), else by a
    threshold on the grey values (:func:`fewer.select.foreground.foreground_share`).

    Raises
    ------
    FewerError
        When nothing is known about the foreground.
    """
    share = pool.foreground
    if share is None and pool.predictions is not None:
        mean = pool.predictions.mean(0) if pool.predictions.ndim == 3 else pool.predictions
        share = 1 - mean[:, 0]
    if share is None or np.isnan(share).all():
        raise FewerError("foreground-random needs the images or predictions, and vectors alone have neither")
    rows = np.random.default_rng([seed, 1]).permutation(pool.candidates())
    known = np.nan_to_num(share[rows], nan=0.0)
    rows = np.concatenate([rows[known >= 0.01], rows[known < 0.01]])[:count]
    why = [f"drawn at random among images with foreground ({100 * share[r]:.0f} % of it)" for r in rows]
    return Selection.of(rows, why, scores=np.nan_to_num(share[rows]))


def select_kcenter(pool: Pool, count: int, seed: int = 0) -> Selection:
    """Greedy k-centre (Gonzalez, 1985; core-set of Sener and Savarese, 2018): always the farthest from all chosen.

    Exact, in O(N) memory. A distance to the nearest chosen image can only fall, so an old one is an upper bound; it is
    brought up to date only for images that could be the farthest.

    Examples
    --------
    >>> line = np.array([[0.0], [1.0], [9.0], [10.0]], np.float32)
    >>> sorted(select_kcenter(Pool(line, labelled=np.array([0])), 2, seed=0).rows.tolist())
    [1, 3]
    """
    rows = pool.candidates()
    centres = [np.asarray(pool.features[row], np.float32) for row in pool.seen()]
    chosen: list[int] = []
    reach: list[float] = []
    if not centres:
        first = int(np.random.default_rng([seed, 2]).integers(len(rows)))
        chosen, reach = [first], [0.0]
        centres = [np.asarray(pool.features[rows[first]], np.float32)]
    bound = np.empty(len(rows), np.float32)
    for start, block in blocks(pool.features, rows):
        bound[start : start + len(block)] = squared_distances(block, np.stack(centres)).min(1)
    applied = np.full(len(rows), len(centres))
    bound[chosen] = -1
    while len(chosen) < count:
        best = _farthest(pool, rows, bound, applied, centres)
        chosen.append(best)
        reach.append(float(np.sqrt(max(bound[best], 0))))
        centres.append(np.asarray(pool.features[rows[best]], np.float32))
        bound[best] = -1
    picks = rows[np.array(chosen, int)]
    why = [
        f"farthest from everything chosen before it (distance {far:.2f})" if far else "the start, drawn at random"
        for far in reach
    ]
    return Selection.of(picks, why, scores=reach, stands_for=_stands_for(pool, picks))


def _farthest(pool: Pool, rows: np.ndarray, bound: np.ndarray, applied: np.ndarray, centres: list[np.ndarray]) -> int:
    """The row with the largest true distance; bounds are lowered on the way."""
    wave = 64
    while True:
        top = np.argpartition(bound, -wave)[-wave:] if wave < len(rows) else np.arange(len(rows))
        stale = top[applied[top] < len(centres)]
        if not len(stale):
            return int(top[bound[top].argmax()])
        since = int(applied[stale].min())
        vectors = np.asarray(pool.features[rows[stale]], np.float32)
        bound[stale] = np.minimum(bound[stale], squared_distances(vectors, np.stack(centres[since:])).min(1))
        applied[stale] = len(centres)
        wave = min(2 * wave, _WAVE)


def _stands_for(pool: Pool, picks: np.ndarray) -> np.ndarray:
    """How many images of the pool are nearest to each pick."""
    labels, _ = nearest(pool.features, np.asarray(pool.features[picks], np.float32), Space(), pool.usable())
    return np.bincount(labels, minlength=len(picks))
