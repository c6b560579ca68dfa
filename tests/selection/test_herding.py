"""Herding is the plain one, and exchanges bring it closer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.selection.herding import exchange, herd

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 200))
def test_herding_is_the_plain_one(seed, n):
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(n, 4)).astype(np.float32), rng.random(n) + 0.1
    taken = rng.random(n) < 0.2
    count = min(10, int((~taken).sum()))
    if not count:
        return
    chosen = herd(points, points, weights, 1.3, count, taken, np.random.default_rng(0))
    table = np.exp(-((points[:, None].astype(float) - points) ** 2).sum(-1) / (2 * 1.3**2))
    target = table @ (weights / weights.sum())
    done = np.flatnonzero(taken).tolist()
    for pick in chosen:
        gain = target - table[:, done].sum(1) / (len(done) + 1)
        gain[done] = -np.inf
        assert gain[pick] >= gain.max() - 3e-6
        done.append(int(pick))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 120))
def test_exchanges_bring_the_herd_closer_until_none_helps(seed, n):
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(n, 3)).astype(np.float32), rng.random(n) + 0.1
    taken = rng.random(n) < 0.2
    count = min(6, int((~taken).sum()))
    if not count:
        return
    first = herd(points, points, weights, 0.8, count, taken, rng)
    table = np.exp(-((points[:, None].astype(float) - points) ** 2).sum(-1) / (2 * 0.8**2))
    target = table @ (weights / weights.sum())

    def discrepancy(picks):
        rows = [*picks, *np.flatnonzero(taken)]
        return table[np.ix_(rows, rows)].mean() - 2 * target[rows].mean()

    better = exchange(points, np.arange(n), weights, 0.8, first, taken, sweeps=50)
    assert len(set(better.tolist())) == count and not taken[better].any()
    assert discrepancy(better) <= discrepancy(first) + 1e-6
    for at in range(count):  # no single exchange is better than what is there
        for other in np.flatnonzero(~taken):
            if other not in better:
                assert discrepancy([*better[:at], other, *better[at + 1 :]]) >= discrepancy(better) - 1e-4
