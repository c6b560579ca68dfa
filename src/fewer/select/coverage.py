"""Our default: cover the pool in proportion to its density, in a robust space, and lean to what a model is unsure of."""

from __future__ import annotations

import numpy as np

from fewer.select.distance import Space, Unit, Whitened, nearest, squared_distances
from fewer.select.pool import BLOCK, Pool, Selection, blocks

__all__ = ["herd", "select_coverage"]

COMPONENTS = 64
POWER = 0.25
WIDTH = 1.0
LEANING = 2.0
_REFERENCE = 8192  # images that stand for the pool's density


def select_coverage(
    pool: Pool,
    count: int,
    seed: int = 0,
    *,
    components: int | None = COMPONENTS,
    power: float = POWER,
    width: float = WIDTH,
    leaning: float = LEANING,
) -> Selection:
    """Choose images whose density follows that of the pool: always where it is most under-represented so far.

    With a Gaussian kernel k, the next image is the one with the largest ``mean_j w_j k(i, j) - mean_s k(i, s)``, where j
    runs over the pool and s over what is chosen or labelled already: dense regions come first, and a region that is
    covered loses its appeal (kernel herding; Chen, Welling and Smola, 2010). Few choices then stand for the whole pool
    as well as they can: the two densities differ least in the kernel's own norm, the maximum mean discrepancy.

    Distances are taken between unit vectors on the strongest principal directions, part-whitened, so that no single
    direction rules and noise directions are left out. Where predictions or uncertainties are known (from the second
    round on) an image of the pool weighs ``w = 1 + leaning * u`` with u between 0 and 1, so that regions where the
    model is unsure ask for more labels.

    The density is estimated from at most 8,192 images; every image of the pool can be chosen. Memory is N x
    ``components`` floats.

    Parameters
    ----------
    pool, count, seed
        As for every method.
    components
        Principal directions to keep; None takes unit vectors as they are.
    power
        0.5 whitens, 0 does not.
    width
        Of the kernel, as a multiple of the pool's median distance.
    leaning
        How much uncertainty counts.

    Examples
    --------
    >>> two_heaps = np.array([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 3, np.float32)
    >>> picks = select_coverage(Pool(two_heaps), 2).rows
    >>> sorted(two_heaps[picks, 0].tolist())
    [0.0, 1.0]
    """
    usable = pool.usable()
    rng = np.random.default_rng([seed, 6])
    space: Space = Unit()
    if components is not None:
        space = Whitened.fit(pool.features, usable, components=components, power=power, seed=seed)
    points = _project(pool, usable, space)
    if len(usable) > _REFERENCE:
        reference = np.sort(rng.choice(len(usable), _REFERENCE, replace=False))
    else:
        reference = np.arange(len(usable))
    unsure = pool.unsure()
    weights = np.ones(len(reference)) if unsure is None else 1 + leaning * unsure[usable[reference]]
    scale = width * _median_distance(points[reference[:: max(1, len(reference) // 1024)]])
    taken = np.isin(usable, pool.labelled)
    chosen, scores = herd(points, points[reference], weights, scale, count, taken, rng)
    rows = usable[chosen]
    labels, _ = nearest(points, points[np.concatenate([chosen, np.flatnonzero(taken)])])
    stands = np.bincount(labels, minlength=len(chosen))[: len(chosen)]
    return Selection.of(
        rows,
        _reasons(rows, stands, bool(taken.any()), unsure),
        groups=np.arange(count),
        stands_for=stands,
        scores=scores,
    )


def herd(
    points: np.ndarray,
    reference: np.ndarray,
    weights: np.ndarray,
    scale: float,
    count: int,
    taken: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
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
    chosen, scores
        [count] places, and by how much each one's region was under-represented when it was chosen.

    Examples
    --------
    >>> line = np.array([[0.0], [0.1], [0.2], [5.0]], np.float32)
    >>> herd(line, line, np.ones(4), 1.0, 2, np.zeros(4, bool), np.random.default_rng(0))[0].tolist()
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
    chosen, scores = np.zeros(count, np.int64), np.zeros(count)
    for place in range(count):
        gain = density - presence / (total + 1) + tie
        gain[~free] = -np.inf
        best = int(gain.argmax())
        chosen[place], scores[place] = best, gain[best]
        free[best] = False
        total += 1
        squared = norms + norms[best] - 2 * (points @ points[best])
        presence += np.exp(np.maximum(squared, 0) * np.float32(-0.5 / scale**2))
    return chosen, scores


def _similarity(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    table = squared_distances(a, b)
    table *= -0.5 / scale**2
    return np.exp(table, out=table)


def _project(pool: Pool, rows: np.ndarray, space: Space) -> np.ndarray:
    width = space.of(np.asarray(pool.features[rows[:1]], np.float32)).shape[1]
    points = np.empty((len(rows), width), np.float32)
    for start, block in blocks(pool.features, rows):
        points[start : start + len(block)] = space.of(block)
    return points


def _median_distance(points: np.ndarray) -> float:
    """Median distance of all pairs of some points; 1 where all are the same."""
    table = squared_distances(points, points)
    apart = table[np.triu_indices(len(points), 1)]
    return float(np.sqrt(np.median(apart))) or 1.0 if len(apart) else 1.0


def _reasons(rows: np.ndarray, stands: np.ndarray, later: bool, unsure: np.ndarray | None) -> list[str]:
    told = []
    for place, (row, near) in enumerate(zip(rows, stands, strict=True)):
        if place == 0 and not later:
            text = f"the most typical image of the whole pool; it stands for {near} images"
        else:
            text = f"its kind was the most under-represented so far; it stands for {near} images"
        if unsure is not None:
            text += f", and the model is {100 * unsure[row]:.0f} % as unsure of it as of its least sure image"
        told.append(text)
    return told
