"""Kernel herding: a few points whose density is that of many (Chen, Welling and Smola, 2010)."""

from __future__ import annotations

import numpy as np

from fewer.selection.distance import squared_distances
from fewer.selection.pool import BLOCK

__all__ = ["exchange", "herd"]


def herd(
    points: np.ndarray,
    reference: np.ndarray,
    weights: np.ndarray,
    scale: float,
    count: int,
    taken: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Kernel herding towards the weighted density of a reference, going on from points that are taken.

    Parameters
    ----------
    points
        [n, k] float32.
    reference
        [m, k] points that the density is estimated from.
    weights
        [m], positive.
    scale
        Width of the Gaussian kernel, in the units of the points.
    count
        Points to choose.
    taken
        [n] bool: cannot be chosen, and count as chosen already.
    rng
        Breaks ties among points that are the same.

    Returns
    -------
    np.ndarray
        [count] places, in the order of choice.

    Examples
    --------
    >>> line = np.array([[0.0], [0.1], [0.2], [5.0]], np.float32)
    >>> herd(line, line, np.ones(4), 1.0, 2, np.zeros(4, bool), np.random.default_rng(0)).tolist()
    [1, 3]
    """
    weights = np.asarray(weights, np.float32) / np.float32(np.sum(weights))
    density, presence = np.empty(len(points), np.float32), np.zeros(len(points), np.float32)
    known = points[taken]
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        density[start : start + BLOCK] = _similarity(block, reference, scale) @ weights
        for first in range(0, len(known), BLOCK):
            presence[start : start + BLOCK] += _similarity(block, known[first : first + BLOCK], scale).sum(1)
    tie = rng.random(len(points), np.float32) * np.float32(1e-6)
    norms = np.einsum("ij,ij->i", points, points)
    total = int(taken.sum())
    free = ~taken
    chosen = np.zeros(count, np.int64)
    for place in range(count):
        gain = density - presence / (total + 1) + tie
        gain[~free] = -np.inf
        best = int(gain.argmax())
        chosen[place] = best
        free[best] = False
        total += 1
        squared = norms + norms[best] - 2 * (points @ points[best])
        presence += np.exp(np.maximum(squared, 0) * np.float32(-0.5 / scale**2))
    return chosen


def exchange(
    points: np.ndarray,
    reference: np.ndarray,
    weights: np.ndarray,
    scale: float,
    chosen: np.ndarray,
    taken: np.ndarray,
    sweeps: int = 3,
) -> np.ndarray:
    """Improve a herd: replace one point at a time by the point that brings its density closest to the reference's.

    Herding never takes a choice back, and its first ones suit a herd of one or two. Here the distance of the two
    densities (their maximum mean discrepancy) falls with every exchange, until none helps or all were tried ``sweeps``
    times. Points are then put in the order in which herding would take them from among themselves.

    Parameters
    ----------
    points, weights, scale, taken
        As for :func:`herd`.
    reference
        [m] places of the points that the density is estimated from, and that may come in.
    chosen
        Places that :func:`herd` chose.
    sweeps
        How often each one is looked at.

    Examples
    --------
    >>> line = np.array([[0.0], [0.4], [0.8], [9.0], [9.1]], np.float32)
    >>> exchange(line, np.arange(5), np.ones(5), 0.5, np.array([0, 2]), np.zeros(5, bool)).tolist()
    [1, 3]
    """
    weights = np.asarray(weights, np.float32) / np.float32(np.sum(weights))
    places = np.union1d(reference[~taken[reference]], chosen)
    own, known = points[places], points[taken]
    total = len(chosen) + len(known)
    density, fixed = np.empty(len(places), np.float32), np.zeros(len(places), np.float32)
    for start in range(0, len(places), BLOCK):
        block = own[start : start + BLOCK]
        density[start : start + BLOCK] = _similarity(block, points[reference], scale) @ weights
        for first in range(0, len(known), BLOCK):
            fixed[start : start + BLOCK] += _similarity(block, known[first : first + BLOCK], scale).sum(1)
    herd_at = np.searchsorted(places, chosen)
    rows = _similarity(own[herd_at], own, scale)
    presence = fixed + rows.sum(0)
    for _ in range(sweeps):
        moved = False
        for at in range(len(herd_at)):
            others = presence - rows[at]
            gain = total * density - others
            now = gain[herd_at[at]]
            gain[herd_at] = -np.inf
            best = int(gain.argmax())
            if gain[best] > now + 1e-4:
                herd_at[at], moved = best, True
                rows[at] = _similarity(own[[best]], own, scale)[0]
                presence = others + rows[at]
        if not moved:
            break
    left, order, presence = list(range(len(herd_at))), [], fixed.copy()
    while left:
        gain = density[herd_at[left]] - presence[herd_at[left]] / (len(known) + len(order) + 1)
        order.append(left.pop(int(gain.argmax())))
        presence += rows[order[-1]]
    return places[herd_at[order]]


def _similarity(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    table = squared_distances(a, b)
    table *= -0.5 / scale**2
    return np.exp(table, out=table)
