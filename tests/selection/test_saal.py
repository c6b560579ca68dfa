"""SAAL as published, and corrected."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.selection.methods import METHODS, choose
from fewer.selection.pool import Pool
from fewer.selection.saal import quotas
from tests.selection.pools import heaps

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


def test_saal_as_published_does_not_look_at_the_images():
    """Its picks are as good as random: 10 heaps of 10, and it misses some; the corrected one finds nearly all."""
    features, heap = heaps(sizes=(10,) * 10, dim=16, spread=0.01)
    found = {
        m: [len(set(heap[choose(Pool(features), m, 10, seed=s).rows])) for s in range(8)]
        for m in METHODS
        if "saal" in m
    }
    assert np.mean(found["saal"]) < 8 < np.mean(found["saal-corrected"])


def test_quotas_add_up_and_stay_near_the_sizes():
    assert quotas(np.array([1, 1, 98]), 10).tolist() == [0, 0, 10]
    for sizes in (np.full(10, 7), np.array([35, 35, 35, 35, 1])):
        for count in (1, 2, 3, 10):
            assert quotas(sizes, count).sum() == count and quotas(sizes, count).min() >= 0
