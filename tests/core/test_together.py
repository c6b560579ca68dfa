"""Whether several budgets can be met together is decided rightly, also where the metrics conflict."""

from __future__ import annotations

import numpy as np
import pytest
from core_curves import brute_force, curve_set, small_curves
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.core.allocation.allocate import allocate
from fewer.core.allocation.feasible import feasible_start, labelled_start
from fewer.core.allocation.problem import Problem
from fewer.core.budget import Budget
from fewer.core.errors import FewerError


def build(curves, shares) -> tuple[Problem, dict[str, float]]:
    budgets = []
    for metric, share in shares.items():
        low = curves.fixed.get(metric, 0.0) + sum(c.cost[metric].min() for c in curves.curves)
        high = curves.fixed.get(metric, 0.0) + sum(c.cost[metric].max() for c in curves.curves)
        budgets.append(Budget(metric, max((low + share * (high - low)) * (1 + 1e-12), 1e-9), False))
    return Problem.build(curves, budgets), {b.metric: b.value for b in budgets}


@settings(max_examples=200, deadline=None)
@given(small_curves(metrics=("weights", "latency"), most_units=4), st.floats(0, 1), st.floats(0, 1))
def test_two_metrics(curves, a, b):
    problem, limits = build(curves, {"weights": a, "latency": b})
    best = brute_force(curves, limits)
    choice, proved = labelled_start(problem)
    assert proved
    assert (choice is None) == (best is None)
    if best is None:
        with pytest.raises(FewerError, match="cannot be met together"):
            feasible_start(problem)
    else:
        assert problem.fits(choice) and problem.fits(feasible_start(problem))


@settings(max_examples=100, deadline=None)
@given(small_curves(metrics=("weights", "latency", "size"), most_units=4), *[st.floats(0, 1)] * 3)
def test_three_metrics(curves, a, b, c):
    problem, limits = build(curves, {"weights": a, "latency": b, "size": c})
    best = brute_force(curves, limits)
    choice, proved = labelled_start(problem)
    assert proved and (choice is None) == (best is None)
    if best is None:
        with pytest.raises(FewerError, match="cannot be met together"):
            allocate(curves, problem.budgets)
    else:
        assert allocate(curves, problem.budgets).distortion <= best * (1 + 1e-9) + 1e-6


def test_three_budgets_with_multipliers(monkeypatch):
    monkeypatch.setattr("fewer.core.allocation.many_budgets._ENUMERATE", 1)
    rng = np.random.default_rng(5)
    costs = {m: (rng.random((6, 5)) * np.linspace(10, 1, 5)).tolist() for m in ("weights", "latency", "size")}
    curves = curve_set(costs, (rng.random((6, 5)) * np.arange(5)).tolist())
    problem, limits = build(curves, {"weights": 0.4, "latency": 0.4, "size": 0.4})
    best = brute_force(curves, limits)
    assert best is not None
    found = allocate(curves, problem.budgets)
    assert all(found.cost[m] <= v for m, v in limits.items())
    assert found.bound <= best <= found.distortion <= 1.1 * best


def test_too_many_partial_plans_are_not_called_a_proof():
    rng = np.random.default_rng(1)
    a = rng.random((12, 4))
    curves = curve_set({"weights": (1 + a).tolist(), "latency": (2 - a).tolist()}, [[0.0] * 4] * 12)
    problem, _ = build(curves, {"weights": 0.45, "latency": 0.45})
    choice, proved = labelled_start(problem, most=3)
    assert choice is None and not proved
