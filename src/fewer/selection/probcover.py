"""ProbCover: as much of the pool as possible within a fixed distance of a chosen image (Yehuda et al., 2022)."""

from __future__ import annotations

import numpy as np

from fewer.selection.cluster import Clusters, cluster
from fewer.selection.distance import Unit, squared_distances
from fewer.selection.greedy import ball, greedy_cover
from fewer.selection.pool import Pool, Selection

__all__ = ["pure_radius", "select_probcover"]

SAMPLE = 10_000
GROUPS = 4
PURITY = 0.95


def pure_radius(vectors: np.ndarray, labels: np.ndarray, purity: float = PURITY) -> float:
    """The largest radius at which that share of the balls around the vectors holds no vector of another label.

    Parameters
    ----------
    vectors
        [n, d].
    labels
        [n] of clusters.
    purity
        Between 0 and 1.

    Examples
    --------
    >>> line = np.array([[0.0], [1.0], [5.0], [6.0]])
    >>> pure_radius(line, np.array([0, 0, 1, 1]), 1.0)
    4.0
    """
    other = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), 1024):
        table = squared_distances(vectors[start : start + 1024], vectors)
        table[labels[start : start + 1024, None] == labels] = np.inf
        other[start : start + 1024] = table.min(1)
    return float(np.sqrt(np.quantile(other, 1 - purity))) if np.isfinite(other).all() else float("inf")


def select_probcover(pool: Pool, count: int, seed: int = 0, *, groups: int = GROUPS) -> Selection:
    """Choose greedily the image with the most uncovered images within a radius.

    The radius is the largest at which 95 % of the balls are pure, with clusters in the place of classes. Vectors are
    scaled to length 1. A pool of more than 10,000 images is judged on a random sample of that size, and the picks come
    from it: the covered share of a ball, estimated from the sample, is off by less than 1 % with 95 % confidence.

    Parameters
    ----------
    pool, count, seed
        As for every method.
    groups
        Clusters that stand for the classes; the paper takes their number, which is rarely known in a cold start.
    """
    space = Unit()
    found = cluster(pool, groups, space, seed)
    places = _sample(pool, found, count, seed)
    rows, labels = found.rows[places], found.labels[places]
    points = space.of(np.asarray(pool.features[rows], np.float32))
    radius = pure_radius(points, labels)
    reach = ball(radius)
    covered = np.zeros(len(rows), np.float32)
    seen = pool.seen()
    for start in range(0, len(seen), 256):
        known = space.of(np.asarray(pool.features[seen[start : start + 256]], np.float32))
        np.maximum(covered, reach(squared_distances(known, points)).max(0), out=covered)
    chosen, gains, _ = greedy_cover(
        points,
        np.ones(len(rows)),
        reach,
        count,
        allowed=np.isin(rows, pool.labelled, invert=True),
        covered=covered,
        rng=np.random.default_rng([seed, 6]),
    )
    scale = len(found.rows) / len(rows)
    gains = np.round(gains * scale)
    why = [
        f"about {int(g)} images lie within the radius {radius:.2f} of it and of no earlier choice"
        if g >= 1
        else "drawn at random: everything is covered already"
        for g in gains
    ]
    return Selection.of(rows[chosen], why, groups=labels[chosen], scores=gains, stands_for=gains)


def _sample(pool: Pool, found: Clusters, count: int, seed: int) -> np.ndarray:
    """Places that are judged: all, or a random sample that always has enough images to choose from."""
    if len(found.rows) <= SAMPLE:
        return np.arange(len(found.rows))
    size = max(SAMPLE, 2 * count + len(pool.labelled))
    if size >= len(found.rows):
        return np.arange(len(found.rows))
    return np.sort(np.random.default_rng([seed, 7]).choice(len(found.rows), size, replace=False))
