"""The plain methods: random, foreground-aware random, and greedy k-centre."""

from __future__ import annotations

import numpy as np

from fewer.core.errors import FewerError
from fewer.selection.distance import Space, nearest, squared_distances
from fewer.selection.pool import Pool, Selection, blocks

__all__ = ["select_foreground", "select_kcenter", "select_random"]

_FAR = 32_768  # images whose distance is up to date after every choice


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
    threshold on the grey values (:func:`fewer.selection.foreground.foreground_share`).

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

    Exact, in O(N) memory. A distance to the nearest chosen image can only fall, so an old one is an upper bound. The
    32,768 farthest images are kept up to date after every choice; the others only when one of them could be farther.

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
        chosen, reach = [int(np.random.default_rng([seed, 2]).integers(len(rows)))], [0.0]
        centres = [np.asarray(pool.features[rows[chosen[0]]], np.float32)]
    bound = np.full(len(rows), np.inf, np.float32)
    done = 0  # centres that all bounds know of
    while len(chosen) < count:
        for start, block in blocks(pool.features, rows):
            part = bound[start : start + len(block)]
            np.minimum(part, squared_distances(block, np.stack(centres[done:])).min(1), out=part)
        done = len(centres)
        bound[chosen] = -1
        far, rest = _farthest(bound)
        vectors = np.asarray(pool.features[rows[far]], np.float32)
        near = bound[far]
        while len(chosen) < count and near.max() >= rest:
            best = int(near.argmax())
            chosen.append(int(far[best]))
            reach.append(float(np.sqrt(max(near[best], 0))))
            centres.append(vectors[best])
            np.minimum(near, squared_distances(vectors, vectors[[best]])[:, 0], out=near)
            near[best] = -1
            # all that are left of these have been chosen
            if near.max() < 0:
                break
    picks = rows[np.array(chosen, int)]
    why = [
        f"farthest from everything chosen before it (distance {far:.2f})" if place else "the start, drawn at random"
        for place, far in enumerate(reach, start=len(pool.seen()))
    ]
    return Selection.of(picks, why, scores=reach, stands_for=_stands_for(pool, picks))


def _farthest(bound: np.ndarray) -> tuple[np.ndarray, float]:
    """Places of the largest bounds, rising, and the largest of the others."""
    if len(bound) <= _FAR:
        return np.arange(len(bound)), -1.0
    order = np.argpartition(bound, -_FAR - 1)
    return np.sort(order[-_FAR:]), float(bound[order[-_FAR - 1]])


def _stands_for(pool: Pool, picks: np.ndarray) -> np.ndarray:
    """How many images of the pool are nearest to each pick."""
    labels, _ = nearest(pool.features, np.asarray(pool.features[picks], np.float32), Space(), pool.usable())
    return np.bincount(labels, minlength=len(picks))
