"""TypiClust: the most typical image of each cluster (Hacohen, Dekel and Weinshall, 2022)."""

from __future__ import annotations

import numpy as np

from fewer.selection.cluster import cluster
from fewer.selection.distance import Unit, squared_distances
from fewer.selection.pool import Pool, Selection

__all__ = ["select_typiclust", "typicality"]

_CLUSTERS = 500
_NEIGHBOURS = 20
_SMALL = 5  # clusters up to this size are passed over while there are others
_SAMPLE = 4096  # members that neighbours are looked for among


def typicality(vectors: np.ndarray, neighbours: int, rng: np.random.Generator) -> np.ndarray:
    """Inverse mean distance to the nearest neighbours, [n].

    Neighbours are looked for among at most 4,096 of the vectors; a sample changes all distances alike.

    Examples
    --------
    >>> typicality(np.array([[0.0], [0.1], [0.2], [9.0]]), 2, np.random.default_rng(0)).argmax()
    np.int64(1)
    """
    others = vectors if len(vectors) <= _SAMPLE else vectors[rng.choice(len(vectors), _SAMPLE, replace=False)]
    count = min(neighbours, len(others) - 1)
    if count < 1:
        return np.ones(len(vectors))
    out = np.empty(len(vectors))
    for start in range(0, len(vectors), 1024):
        table = squared_distances(vectors[start : start + 1024], others)
        near = np.sort(np.partition(table, count, axis=1)[:, : count + 1], axis=1)[:, 1:]  # without itself
        out[start : start + 1024] = np.sqrt(near).mean(1)
    return 1 / (out + 1e-5)


def select_typiclust(pool: Pool, count: int, seed: int = 0) -> Selection:
    """Cluster into as many groups as there will be labels (at most 500); take the most typical image of each.

    Groups with the fewest labels come first, larger ones before smaller; groups of at most five images wait. Typical is
    who has the smallest mean distance to 20 neighbours in its group. Vectors are scaled to length 1.
    """
    space = Unit()
    found = cluster(pool, min(len(pool.seen()) + count, _CLUSTERS), space, seed)
    sizes = found.sizes()
    given = np.bincount(found.labels[np.isin(found.rows, pool.labelled)], minlength=len(sizes))
    free = np.isin(found.rows, pool.labelled, invert=True)
    rng = np.random.default_rng([seed, 4])
    order_of: dict[int, list[int]] = {}
    score_of: dict[int, float] = {}

    def waiting(group: int) -> list[int]:
        """Members that can be chosen, the most typical last."""
        if group not in order_of:
            rows = found.rows[(found.labels == group) & free]
            vectors = space.of(np.asarray(pool.features[rows], np.float32))
            value = typicality(vectors, min(_NEIGHBOURS, max(1, len(rows) // 2)), rng) if len(rows) else np.zeros(0)
            score_of.update(zip(rows.tolist(), value.tolist(), strict=True))
            order_of[group] = rows[np.argsort(value, kind="stable")].tolist()
        return order_of[group]

    left = np.bincount(found.labels[free], minlength=len(sizes))
    rows, groups = [], []
    while len(rows) < count:
        rank = np.lexsort((-sizes, given, sizes <= _SMALL, left == 0))
        group = int(rank[0])
        rows.append(waiting(group).pop())
        groups.append(group)
        given[group] += 1
        left[group] -= 1
    why = [
        f"the most typical of a group of {sizes[g]} similar images"
        if groups.index(g) == i
        else f"the next most typical of a group of {sizes[g]} similar images"
        for i, g in enumerate(groups)
    ]
    stands = [float(sizes[g] / max(1, given[g])) for g in groups]
    return Selection.of(rows, why, groups=groups, scores=[score_of[r] for r in rows], stands_for=stands)
