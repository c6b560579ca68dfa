"""Lazy greedy coverage against the plain one, and against the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.selection.distance import squared_distances
from fewer.selection.greedy import ball, gaussian, greedy_cover

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


def brute_cover(points, weights, kernel, count, covered):
    covered, chosen = covered.copy(), []
    table = kernel(squared_distances(points, points)).astype(float)
    for _ in range(count):
        gain = np.maximum(table - covered, 0) @ weights
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covered = np.maximum(covered, table[chosen[-1]])
    return chosen, float(weights @ covered)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 300), st.booleans())
def test_lazy_coverage_is_as_good_as_plain_greedy(seed, n, soft):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3)).astype(np.float32)
    weights = rng.random(n)
    covered = rng.random(n).astype(np.float32) * (rng.random(n) < 0.3)
    kernel = gaussian(0.7) if soft else ball(0.7)
    count = min(n, 12)
    chosen, gains, after = greedy_cover(points, weights, kernel, count, covered=covered)
    wanted, value = brute_cover(points, weights, kernel, count, covered)
    assert float(weights @ after) == pytest.approx(value, rel=1e-4)
    assert (np.diff(gains) <= 1e-4).all() and len(set(chosen.tolist())) == count
    if soft:  # balls tie often, so only their value is the same
        assert chosen.tolist() == wanted


def test_greedy_coverage_is_within_its_bound_of_the_best():
    from itertools import combinations

    points = np.random.default_rng(3).normal(size=(12, 2)).astype(np.float32)
    table = gaussian(0.8)(squared_distances(points, points))
    best = max(table[list(three)].max(0).sum() for three in combinations(range(12), 3))
    _, gains, _ = greedy_cover(points, np.ones(12), gaussian(0.8), 3)
    assert (1 - 1 / np.e) * best <= gains.sum() <= best + 1e-4
