"""Coverage represents the pool, and looks where a model is unsure."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.selection.coverage import select_coverage
from fewer.selection.distance import squared_distances
from fewer.selection.methods import choose
from fewer.selection.pool import Pool
from tests.selection.pools import heaps

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


def test_herding_represents_the_pool_better_than_chance():
    features, _ = heaps(sizes=(200, 120, 60, 20), spread=0.4)
    table = np.exp(-squared_distances(features, features) / 8)

    def discrepancy(rows):
        return table.mean() - 2 * table[rows].mean() + table[np.ix_(rows, rows)].mean()

    ours = discrepancy(select_coverage(Pool(features), 10, kinds=0, power=0.0).rows)
    chance = [discrepancy(choose(Pool(features), "random", 10, seed=s).rows) for s in range(20)]
    assert ours < min(chance)


def test_uncertainty_pulls_coverage_towards_it():
    features, heap = heaps(sizes=(50, 50), spread=0.3)
    known = np.concatenate([np.flatnonzero(heap == h)[:5] for h in (0, 1)])
    unsure = np.where(heap == 1, 1.0, 0.0)
    plain = choose(Pool(features, labelled=known), "coverage", 12).rows
    pulled = choose(Pool(features, labelled=known, uncertainty=unsure), "coverage", 12).rows
    assert (heap[plain] == 1).sum() <= 7 and (heap[pulled] == 1).sum() >= (heap[plain] == 1).sum() + 2
