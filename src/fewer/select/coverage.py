"""Our default: cover the kinds of image that the pool has, then follow its density, and lean to what is uncertain."""

from __future__ import annotations

import numpy as np

from fewer.select.cluster import cluster
from fewer.select.distance import Space, Whitened, nearest, squared_distances
from fewer.select.pool import BLOCK, Pool, Selection, blocks

__all__ = ["herd", "select_coverage"]

COMPONENTS = 32
POWER = 0.5
KINDS = 64
LEANING = 2.0
_REFERENCE = 8192  # images that stand for the pool's density


def select_coverage(
    pool: Pool,
    count: int,
    seed: int = 0,
    *,
    components: int = COMPONENTS,
    power: float = POWER,
    kinds: int = KINDS,
    leaning: float = LEANING,
) -> Selection:
    """Choose one image of every kind first, then images that bring the chosen density close to that of the pool.

    Distances are taken between unit vectors on the pool's 32 strongest principal directions, whitened: no single
    direction rules, and directions of noise are left out.

    1. *Kinds.* k-means into as many clusters as there will be labels, at most 64. Of every cluster that has no label
       yet, the image nearest to the centre is taken, the largest cluster first. In later rounds clusters of less than
       half the mean weight are left to the second step: they are what fell between the labelled ones.
    2. *Density.* With a Gaussian kernel k, the next image is the one with the largest
       ``mean_j w_j k(i, j) - mean_s k(i, s)``, where j runs over the pool and s over what is chosen or labelled: always
       where the pool is most under-represented so far (kernel herding; Chen, Welling and Smola, 2010).

    Where predictions or uncertainties are known (from the second round on) an image of the pool weighs
    ``w = 1 + leaning * u`` with u between 0 and 1 in both steps, so that regions where the model is unsure get more
    labels. The density is estimated from at most 8,192 images; every image can be chosen. Memory is N x ``components``
    floats.

    Parameters
    ----------
    pool, count, seed
        As for every method.
    components
        Principal directions to keep.
    power
        0.5 whitens, 0 does not.
    kinds
        Clusters at most; later choices follow the density.
    leaning
        How much uncertainty counts.

    Examples
    --------
    >>> two_heaps = np.array([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 3, np.float32)
    >>> picks = select_coverage(Pool(two_heaps), 2).rows
    >>> two_heaps[picks, 0].tolist()
    [1.0, 0.0]
    """
    usable = pool.usable()
    rng = np.random.default_rng([seed, 6])
    space = Whitened.fit(pool.features, usable, components=components, power=power, seed=seed)
    points = _project(pool, usable, space)
    taken = np.isin(usable, pool.labelled)
    unsure = pool.unsure()
    weights = np.ones(len(usable)) if unsure is None else 1 + leaning * unsure[usable]

    first, sizes = _kinds(points, weights, taken, count, kinds, seed)
    later = np.zeros(0, np.int64)
    if len(first) < count:
        reference = np.arange(len(usable))
        if len(usable) > _REFERENCE:
            reference = np.sort(rng.choice(len(usable), _REFERENCE, replace=False))
        scale = _median_distance(points[reference[:: max(1, len(reference) // 1024)]])
        covered = taken.copy()
        covered[first] = True
        later = herd(points, points[reference], weights[reference], scale, count - len(first), covered, rng)

    chosen = np.concatenate([first, later])
    labels, _ = nearest(points, points[np.concatenate([chosen, np.flatnonzero(taken)])])
    stands = np.bincount(labels, minlength=len(chosen))[: len(chosen)]
    why = [
        f"the most central of a group of {size} similar images that has no label yet"
        if size > 1
        else "unlike any other"
        for size in sizes
    ]
    why += [
        f"its kind was the most under-represented so far; it stands for {near} images" for near in stands[len(why) :]
    ]
    if unsure is not None:
        why = [
            f"{text}; the model is {100 * unsure[usable[place]]:.0f} % as unsure of it as of its least sure image"
            for text, place in zip(why, chosen, strict=True)
        ]
    return Selection.of(usable[chosen], why, groups=np.arange(len(chosen)), stands_for=stands, scores=weights[chosen])


def _kinds(
    points: np.ndarray, weights: np.ndarray, taken: np.ndarray, count: int, kinds: int, seed: int
) -> tuple[np.ndarray, list[int]]:
    """Central members of clusters without a label, the heaviest cluster first, and the sizes of the clusters."""
    wanted = min(count, kinds - int(taken.sum()))
    if wanted < 1:
        return np.zeros(0, np.int64), []
    found = cluster(Pool(points), wanted + int(taken.sum()), Space(), seed, tries=3, weights=weights)
    clusters = len(found.centres)
    free = np.ones(clusters, bool)
    free[found.labels[taken]] = False
    mass = np.bincount(found.labels, weights, clusters)
    sizes = found.sizes()
    least = 0.5 * mass.mean() if taken.any() else 0.0
    order = [g for g in np.argsort(-mass, kind="stable") if free[g] and sizes[g] and mass[g] >= least][:wanted]
    by_distance = np.argsort(found.squared, kind="stable")
    central = np.full(clusters, -1)
    central[found.labels[by_distance[::-1]]] = by_distance[::-1]  # the last one written is the nearest
    return central[order].astype(np.int64), [int(sizes[g]) for g in order]


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
    apart = squared_distances(points, points)[np.triu_indices(len(points), 1)]
    return (float(np.sqrt(np.median(apart))) or 1.0) if len(apart) else 1.0
