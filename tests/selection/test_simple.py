"""The k-centre is the plain greedy one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.selection.methods import choose
from fewer.selection.pool import Pool

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


def brute_kcenter(features: np.ndarray, start: list[int], count: int) -> list[int]:
    chosen = list(start)
    while len(chosen) < len(start) + count:
        distance = ((features[:, None].astype(float) - features[chosen]) ** 2).sum(-1).min(1)
        chosen.append(int(distance.argmax()))
    return chosen[len(start) :]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 300), st.integers(1, 40))
def test_kcenter_is_the_plain_greedy_one(seed, n, dim):
    features = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    start = [seed % n]
    count = min(n - 1, 30)
    picks = choose(Pool(features, labelled=np.array(start)), "kcenter", count, seed)
    assert picks.rows.tolist() == brute_kcenter(features, start, count)


def test_kcenter_is_the_same_when_few_distances_are_kept_up_to_date(monkeypatch):
    features = np.random.default_rng(1).normal(size=(400, 8)).astype(np.float32)
    wanted = choose(Pool(features), "kcenter", 60, seed=2).rows.tolist()
    for kept in (1, 7, 100):
        monkeypatch.setattr("fewer.selection.simple._FAR", kept)
        assert choose(Pool(features), "kcenter", 60, seed=2).rows.tolist() == wanted
