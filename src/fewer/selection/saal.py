"""SAAL (Zhao et al., EMBC 2022): representatives in proportion to the size of clusters; as published, and corrected.

Reimplementation of the method as its paper describes it and as its released code computes it. That code takes its
features from the training generator, which shuffles the images on every call and gives corrupted ones, so row i of its
table is not image i; and it ranks all images, not the members of a cluster, so that one image can be chosen twice.
``saal`` keeps both; ``saal-corrected`` has neither.
"""

from __future__ import annotations

import numpy as np

from fewer.selection.cluster import cluster
from fewer.selection.distance import Space, squared_distances
from fewer.selection.pool import Pool, Selection, blocks

__all__ = ["quotas", "select_saal", "select_saal_corrected"]

CLUSTERS = 10


def quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """Share of the budget of each cluster: rounded in proportion, and the last cluster takes the remainder.

    Where rounding gave away more than there is, the largest quotas are cut.

    Examples
    --------
    >>> quotas(np.array([50, 30, 20]), 10).tolist(), quotas(np.array([10, 10, 10, 10]), 2).tolist()
    ([5, 3, 2], [0, 0, 0, 2])
    """
    given = np.round(sizes / max(1, sizes.sum()) * count).astype(int)
    given[-1] += count - given.sum()
    while given[-1] < 0:
        given[given[:-1].argmax()] -= 1
        given[-1] += 1
    return given


def select_saal(pool: Pool, count: int, seed: int = 0) -> Selection:
    """SAAL as published: features of randomly drawn, corrupted images, whose row numbers are used as image numbers.

    Duplicates shrink the set, as they do in the released code, so that fewer than ``count`` images may come back.
    """
    rng = np.random.default_rng([seed, 5])
    usable = pool.usable()
    source = pool.corrupted() if pool.corrupted is not None else pool.features
    drawn = rng.choice(usable, len(usable))  # the generator draws anew for every row
    shuffled = Pool(source[drawn])
    found = cluster(shuffled, CLUSTERS, Space(), seed, init="random")
    rows: list[int] = []
    groups: list[int] = []
    taken = set(pool.labelled.tolist())
    for group, quota in enumerate(quotas(found.sizes(), count)):
        if not quota:
            continue
        distance = np.concatenate(
            [squared_distances(block, found.centres[[group]])[:, 0] for _, block in blocks(shuffled.features)]
        )
        for place in np.argsort(distance, kind="stable")[:quota]:
            if int(usable[place]) not in taken:
                taken.add(int(usable[place]))
                rows.append(int(usable[place]))
                groups.append(group)
    why = "near a cluster centre in the published features, whose rows are not those of the images"
    return Selection.of(rows, why, groups=groups)


def select_saal_corrected(pool: Pool, count: int, seed: int = 0) -> Selection:
    """SAAL with the features of the images themselves, and each cluster's quota filled from its own members.

    In later rounds a cluster's quota is its share of all labels, less those that it has.
    """
    found = cluster(pool, CLUSTERS, Space(), seed, init="random")
    sizes = found.sizes()
    labelled = np.isin(found.rows, pool.labelled)
    have = np.bincount(found.labels[labelled], minlength=len(sizes))
    left = sizes - have
    wanted = np.minimum(np.maximum(quotas(sizes, count + int(have.sum())) - have, 0), left)
    while wanted.sum() > count:
        wanted[wanted.argmax()] -= 1
    while wanted.sum() < count:
        wanted[np.where(wanted < left, (left - wanted), -1).argmax()] += 1
    rows: list[int] = []
    groups: list[int] = []
    for group, quota in enumerate(wanted):
        members = np.flatnonzero((found.labels == group) & ~labelled)
        nearest_first = members[np.argsort(found.squared[members], kind="stable")][:quota]
        rows += found.rows[nearest_first].tolist()
        groups += [group] * len(nearest_first)
    why = [f"among the nearest to the centre of a cluster of {sizes[g]} images" for g in groups]
    stands = [sizes[g] / max(1, wanted[g]) for g in groups]
    return Selection.of(rows, why, groups=groups, stands_for=stands)
