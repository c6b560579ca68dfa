"""The plan is the best within the budget, and never over it: held against brute force."""

from __future__ import annotations

import time

import numpy as np
import pytest
from core_curves import brute_force, curve_set, every_plan, small_curves, smooth_curves
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.core.allocation.allocate import allocate, frontier
from fewer.core.budget import Budget, parse_budgets
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError

quick = settings(max_examples=150, deadline=None)


def reachable(curves: CurveSet, metric: str, share: float) -> float:
    """A limit between the cheapest plan and the dearest."""
    totals = [curves.total(metric, c) for c in every_plan(curves)]
    return max(min(totals) + share * (max(totals) - min(totals)), 1e-9)


@quick
@given(small_curves(), st.floats(0, 1), st.sampled_from([1, 3, 50, 10_000]))
def test_one_budget_is_best_within_the_stated_slack(curves, share, buckets):
    limit = reachable(curves, "weights", share)
    if min(curves.total("weights", c) for c in every_plan(curves)) > limit:
        return
    found = allocate(curves, [Budget("weights", limit, False)], buckets=buckets)
    assert found.cost["weights"] == curves.total("weights", found.choice) <= limit
    assert found.distortion == curves.distortion(found.choice)
    best = brute_force(curves, {"weights": limit})
    assert best is not None
    assert found.bound <= best * (1 + 1e-12) + 1e-9
    # nothing that costs the slack less is better
    tight = brute_force(curves, {"weights": limit - found.slack["weights"] * (1 + 1e-9)})
    assert tight is None or found.distortion <= tight * (1 + 1e-12) + 1e-9


@quick
@given(small_curves(whole=True), st.floats(0, 1))
def test_whole_numbered_costs_are_solved_exactly(curves, share):
    limit = np.ceil(reachable(curves, "weights", share))
    if min(curves.total("weights", c) for c in every_plan(curves)) > limit:
        return
    found = allocate(curves, [Budget("weights", limit, False)])
    assert found.distortion == pytest.approx(brute_force(curves, {"weights": limit}), abs=1e-9)
    assert found.slack["weights"] == 0


@settings(max_examples=60, deadline=None)
@given(small_curves(most_units=4), st.floats(0, 1))
def test_default_buckets_are_as_good_as_brute_force(curves, share):
    """Extending the table by the rounding and polishing leaves nothing on such small problems."""
    limit = reachable(curves, "weights", share)
    if (best := brute_force(curves, {"weights": limit})) is None:
        return
    assert allocate(curves, [Budget("weights", limit, False)]).distortion <= best * (1 + 1e-9) + 1e-6


@quick
@given(small_curves(most_units=4), st.floats(0, 1), st.data())
def test_monotone_mode_never_un_prunes(curves, share, data):
    floor = [data.draw(st.integers(0, len(c) - 1)) for c in curves.curves]

    def allowed(choice):
        return all(k >= low for k, low in zip(choice, floor, strict=True))

    limit = reachable(curves, "weights", share)
    best = brute_force(curves, {"weights": limit}, allowed)
    if best is None:
        with pytest.raises(FewerError, match="without un-pruning"):
            allocate(curves, [Budget("weights", limit, False)], at_least=np.array(floor))
        return
    found = allocate(curves, [Budget("weights", limit, False)], at_least=np.array(floor))
    assert allowed(found.choice)
    assert found.distortion <= best * (1 + 1e-9) + 1e-6


@settings(max_examples=200, deadline=None)
@given(small_curves(metrics=("weights", "latency"), most_units=4), st.floats(0, 1), st.floats(0, 1))
def test_two_budgets_are_met_and_solved_or_refused_rightly(curves, a, b):
    limits = {"weights": reachable(curves, "weights", a), "latency": reachable(curves, "latency", b)}
    budgets = [Budget(m, v, False) for m, v in limits.items()]
    best = brute_force(curves, limits)
    if best is None:
        with pytest.raises(FewerError, match="cannot be met"):
            allocate(curves, budgets)
        return
    found = allocate(curves, budgets)
    assert all(found.cost[m] <= v for m, v in limits.items())
    assert found.distortion <= best * (1 + 1e-9) + 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_two_budgets_with_multipliers_are_near_brute_force(seed, monkeypatch):
    """Enumeration is switched off, so that the multipliers and the polish do the work."""
    monkeypatch.setattr("fewer.core.allocation.many_budgets._ENUMERATE", 1)
    curves = smooth_curves(5, 6, seed)
    budgets = parse_budgets("weights=45%,latency=0.55x")
    limits = {b.metric: b.limit(curves) for b in budgets}
    best = brute_force(curves, limits)
    if best is None:
        with pytest.raises(FewerError):
            allocate(curves, budgets)
        return
    found = allocate(curves, budgets)
    assert all(found.cost[m] <= v for m, v in limits.items())
    assert found.bound <= best * (1 + 1e-9)
    assert found.distortion <= 1.02 * best


def test_two_budgets_at_the_size_of_a_model_are_close_to_their_bound():
    curves = smooth_curves(54, 101, 3)
    found = allocate(curves, "weights=45%,latency=0.5x")
    assert found.cost["weights"] <= 0.45 * curves.dense("weights")
    assert found.cost["latency"] <= 0.5 * curves.dense("latency")
    assert found.distortion <= 1.01 * found.bound


def test_conflicting_budgets_that_only_few_plans_meet():
    """Cheap in one metric is dear in the other, and exactly the alternating plans fit."""
    n = 24
    rng = np.random.default_rng(0)
    low = rng.integers(1, 5, n).astype(float)
    costs = {"weights": [[10.0, w, 6.0] for w in low], "latency": [[10.0, 9.0, 3.0]] * n}
    curves = curve_set(costs, [[0.0, 1.0, 2.0]] * n)
    budgets = "weights=100,latency=144ms"
    found = allocate(curves, budgets)
    assert found.cost["weights"] <= 100 and found.cost["latency"] <= 144


def test_costs_that_rounding_up_would_make_infeasible():
    """200 units whose cheapest options fill the budget to the last byte, in buckets that do not divide it."""
    curves = curve_set({"size": [[3.0, 1.0 / 3.0]] * 200}, [[0.0, 1.0]] * 200)
    limit = curves.total("size", [1] * 200)
    found = allocate(curves, [Budget("size", limit, False)], buckets=7)
    assert found.choice.tolist() == [1] * 200


def test_budget_below_the_least_says_what_can_be_reached():
    curves = curve_set({"size": [[8e6, 2e6], [6e6, 1e6]]}, [[0.0, 1.0]] * 2, {"size": 234_567.0})
    with pytest.raises(FewerError) as error:
        allocate(curves, "size=1MB")
    assert str(error.value) == "size=1MB cannot be met: the smallest reachable size is 3.24MB (22.8 % of dense)"
    assert allocate(curves, "size=3.24MB").choice.tolist() == [1, 1]
    with pytest.raises(FewerError, match=r"smallest reachable size is 22\.8 % of dense \(3\.24MB\)"):
        allocate(curves, "size=10%")
    assert allocate(curves, "size=22.8%").choice.tolist() == [1, 1]


def test_budgets_that_exclude_each_other_say_what_is_left():
    curves = curve_set({"weights": [[10.0, 1.0, 9.0]], "latency": [[10.0, 8.0, 2.0]]}, [[0.0, 1.0, 1.0]])
    with pytest.raises(FewerError) as error:
        allocate(curves, "weights=20%,latency=0.3x")
    assert str(error.value) == (
        "latency=0.3x cannot be met together with weights=20%: the smallest reachable latency is 80 % of dense (8ms)"
    )


def test_a_budget_above_dense_gives_the_dense_plan():
    curves = smooth_curves(6, 11)
    assert allocate(curves, "weights=1G").choice.tolist() == [0] * 6
    assert allocate(curves, "weights=100%").choice.tolist() == [0] * 6
    assert allocate(curves, "weights=1G").distortion == 0


def test_curves_without_the_metric():
    with pytest.raises(FewerError, match="do not measure 'energy'; they have latency, weights"):
        allocate(smooth_curves(3, 5), "energy=5mJ")


def test_free_options_and_ties():
    curves = curve_set({"weights": [[0.0, 0.0], [5.0, 5.0]]}, [[0.0, 3.0], [0.0, 0.0]])
    assert allocate(curves, "weights=5").choice.tolist() == [0, 0]


def test_bad_monotone_floors():
    curves = smooth_curves(3, 5)
    with pytest.raises(FewerError, match="2 entries, but there are 3 units"):
        allocate(curves, "weights=50%", at_least=[0, 0])
    with pytest.raises(FewerError, match="option 9 of unit 'layer1', which has 5"):
        allocate(curves, "weights=50%", at_least=[0, 9, 0])


def test_frontier_is_what_single_plans_are_and_marks_what_is_out_of_reach():
    curves = smooth_curves(10, 21)
    shares = [0.001, 0.6, 1.0, 0.5]
    plans = frontier(curves, "latency", shares)
    assert plans[0] is None
    for share, plan in zip(shares[1:], plans[1:], strict=True):
        alone = allocate(curves, [Budget("latency", share, True)])
        assert plan is not None and plan.choice.tolist() == alone.choice.tolist()
        assert plan.cost["latency"] <= share * curves.dense("latency")


def test_large_problem_is_quick_and_provably_near_the_optimum():
    curves = smooth_curves(54, 101)
    begin = time.process_time()
    found = allocate(curves, "weights=50%")
    assert time.process_time() - begin < 1.0
    assert found.distortion <= 1.0001 * found.bound


def test_the_same_curves_give_the_same_plan():
    plans = [allocate(smooth_curves(20, 31), "weights=40%,latency=0.6x").choice for _ in range(2)]
    assert plans[0].tolist() == plans[1].tolist()
