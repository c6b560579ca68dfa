"""Our default: cover the kinds of image that the pool has, then follow its density, and lean to what is uncertain."""

from __future__ import annotations

import numpy as np

from fewer.selection.cluster import cluster
from fewer.selection.distance import Space, Whitened, nearest, squared_distances
from fewer.selection.herding import exchange, herd
from fewer.selection.pool import Pool, Selection, blocks
from fewer.selection.typical import typicality

__all__ = ["select_coverage"]

COMPONENTS = 32
POWER = 0.25
KINDS = 24
BREADTH = 0.5
LEANING = 2.0
_REFERENCE = 8192  # images that stand for the pool's density
_NEIGHBOURS = 20
_MEMBERS = 4096  # of a kind that are looked at


def select_coverage(
    pool: Pool,
    count: int,
    seed: int = 0,
    *,
    components: int = COMPONENTS,
    power: float = POWER,
    kinds: int = KINDS,
    breadth: float = BREADTH,
    leaning: float = LEANING,
) -> Selection:
    """Choose one image of every kind while labels are few, else images that together have the density of the pool.

    Distances are taken between unit vectors on the pool's 32 strongest principal directions, half whitened (divided by
    the root of their spread): no single direction rules, and directions of noise are left out.

    1. *Kinds*, as long as there are at most 24 labels in all. k-means into as many clusters as there will be labels. Of
       every cluster that has no label yet, the most typical image is taken (the mean distance to its 20 nearest
       neighbours in the cluster is smallest), the largest cluster first. In later rounds clusters of less than half the
       mean weight are left to the second step: they are what fell between the labelled ones.
    2. *Density.* With a Gaussian kernel k, the next image is the one with the largest
       ``mean_j w_j k(i, j) - mean_s k(i, s)``, where j runs over the pool and s over what is chosen or labelled: always
       where the pool is most under-represented so far (:func:`fewer.selection.herding.herd`). Then images are exchanged
       one by one as long as that brings the two densities closer (:func:`fewer.selection.herding.exchange`).

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
        0.5 whitens, 0 does not; 0.25 lies between.
    kinds
        Labels, old and new, up to which every kind gets one.
    breadth
        Width of the kernel, relative to the median distance of two images.
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
        scale = breadth * _median_distance(points[reference[:: max(1, len(reference) // 1024)]])
        covered = taken.copy()
        covered[first] = True
        later = herd(points, points[reference], weights[reference], scale, count - len(first), covered, rng)
        later = exchange(points, reference, weights[reference], scale, later, covered)

    chosen = np.concatenate([first, later])
    labels, _ = nearest(points, points[np.concatenate([chosen, np.flatnonzero(taken)])])
    stands = np.bincount(labels, minlength=len(chosen))[: len(chosen)]
    why = [
        f"the most typical of a group of {size} similar images that has no label yet"
        if size > 1
        else "unlike any other"
        for size in sizes
    ]
    why += [
        f"its kind was the most under-represented so far; it stands for {near} image{'s' if near != 1 else ''}"
        for near in stands[len(why) :]
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
    """Typical members of clusters without a label, the heaviest cluster first, and the sizes of the clusters."""
    before = int(taken.sum())
    if before + count > kinds:
        return np.zeros(0, np.int64), []
    found = cluster(Pool(points), count + before, Space(), seed, tries=3, weights=weights)
    clusters = len(found.centres)
    free = np.ones(clusters, bool)
    free[found.labels[taken]] = False
    mass = np.bincount(found.labels, weights, clusters)
    sizes = found.sizes()
    least = 0.5 * mass.mean() if taken.any() else 0.0
    order = [g for g in np.argsort(-mass, kind="stable") if free[g] and sizes[g] and mass[g] >= least][:count]
    rng = np.random.default_rng([seed, 9])
    typical = []
    for group in order:
        members = np.flatnonzero(found.labels == group)
        if len(members) > _MEMBERS:
            members = np.sort(rng.choice(members, _MEMBERS, replace=False))
        closeness = typicality(points[members], min(_NEIGHBOURS, max(1, len(members) // 2)), rng)
        typical.append(int(members[closeness.argmax()]))
    return np.array(typical, np.int64), [int(sizes[g]) for g in order]


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
