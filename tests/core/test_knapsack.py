"""The table alone, without what is built around it."""

from __future__ import annotations

import numpy as np
import pytest
from core_curves import brute_force, small_curves, smooth_curves
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.core.allocation.bounds import reduce_problem
from fewer.core.allocation.knapsack import Table
from fewer.core.allocation.problem import Problem
from fewer.core.budget import Budget


@settings(max_examples=150, deadline=None)
@given(small_curves(), st.floats(0.001, 1), st.integers(1, 300))
def test_every_bucket_of_the_budget_is_within_it_and_the_last_is_a_bound(curves, share, buckets):
    dearest = sum(c.cost["weights"].max() for c in curves.curves) + curves.fixed["weights"]
    problem = Problem.build(curves, Budget("weights", dearest + 1, False))
    least = problem.spent_least()[0]
    limit = least + share * (dearest - least)
    problem = problem.limited(Budget("weights", max(limit, 1e-9), False))
    room = float(problem.room[0])
    table = Table(problem.cost[0], problem.distortion, room, buckets)
    assert (np.diff(table.distortion) <= 0).all()
    at = np.arange(min(table.bucket(room), table.size) + 1)
    for bucket, plan in zip(at, table.trace(at), strict=True):
        assert problem.spent(plan)[0] <= room + curves.fixed["weights"] + 1e-6
        assert problem.distortion_of(plan) == pytest.approx(table.distortion[bucket], abs=1e-9, rel=1e-12)
    best = brute_force(curves, {"weights": problem.limit[0]})
    if best is not None:
        assert table.distortion[min(table.reach(room), table.size)] <= best + 1e-9


def test_many_options_need_a_wider_table():
    curves = smooth_curves(3, 300, metrics=("weights",))
    problem = Problem.build(curves, "weights=50%")
    table = Table(problem.cost[0], problem.distortion, float(problem.room[0]), 1000)
    plan = table.trace(np.array([table.bucket(float(problem.room[0]))]))[0]
    assert problem.distortion_of(plan) == pytest.approx(table.distortion[table.bucket(float(problem.room[0]))])


@settings(max_examples=100, deadline=None)
@given(small_curves(metrics=("weights", "latency"), most_units=4), st.floats(0, 1), st.floats(0, 1))
def test_reduction_keeps_the_optimum(curves, a, b):
    budgets = []
    for metric, share in (("weights", a), ("latency", b)):
        dense = curves.dense(metric)
        budgets.append(Budget(metric, max(dense * share, 1e-9), False))
    limits = {x.metric: x.value for x in budgets}
    best = brute_force(curves, limits)
    if best is None:
        return
    problem = Problem.build(curves, budgets)
    start = next(np.array(c) for c in np.ndindex(*(len(c) for c in curves.curves)) if problem.fits(np.array(c)))
    reduced = reduce_problem(problem, start)
    assert problem.fits(reduced.choice)
    assert reduced.bound <= best + 1e-9
    kept = [set(reduced.index[i, np.isfinite(h)]) for i, h in enumerate(reduced.problem.distortion)]
    among = brute_force(curves, limits, lambda c: all(k in kept[i] for i, k in enumerate(c)))
    assert among == pytest.approx(best, abs=1e-6)
