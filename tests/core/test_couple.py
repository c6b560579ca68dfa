"""Coupled units: the plan over items is the best plan over units that agree."""

from __future__ import annotations

import numpy as np
import pytest
from core_curves import brute_force
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.core.allocation.allocate import allocate, frontier
from fewer.core.allocation.problem import Problem
from fewer.core.allocation.search import local_search
from fewer.core.couple import in_step, share_of
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.plan import Plan
from fewer.core.unit import Unit
from fewer.engine.plan import choose

SHARES = (0.25, 0.5)


def coupled_curves(seed: int, groups: int = 2, alone: int = 1, sizes: tuple[int, ...] = (2, 3)) -> CurveSet:
    """Random curves: groups of producers and one consumer, then units that are in none; costs need not fall."""
    rng = np.random.default_rng(seed)
    curves, coupled = [], []
    for g in range(groups):
        size = int(rng.choice(sizes))
        names = [f"g{g}.{i}" for i in range(size)]
        for i, name in enumerate(names):
            side = "columns:2" if i == size - 1 else "rows:2"
            options = (Option(), Option("block:2x2", 0.5), *(Option(side, s) for s in SHARES))
            curves.append(_curve(name, options, rng))
        coupled.append(tuple(names))
    for i in range(alone):
        curves.append(_curve(f"alone{i}", (Option(), Option("block:2x2", 0.5), Option("block:2x2", 0.75)), rng))
    return CurveSet(tuple(curves), {"weights": 2.0}, coupled=tuple(coupled))


def _curve(name: str, options: tuple[Option, ...], rng: np.random.Generator) -> Curve:
    cost = {m: np.round(rng.uniform(1, 20, len(options)), 1) for m in ("weights", "latency")}
    return Curve(Unit(name, "linear", (4, 4)), options, cost, np.r_[0.0, rng.uniform(0, 5, len(options) - 1)])


def agrees(curves: CurveSet, choice) -> bool:
    """Whether every group removes one share, or nothing."""
    return all(len({share_of(curves.curves[i].options[choice[i]]) for i in g}) == 1 for g in curves.groups)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 1.0))
def test_one_budget_is_planned_as_well_as_by_trying_everything(seed: int, share: float) -> None:
    curves = coupled_curves(seed)
    limit = share * curves.dense("weights")
    best = brute_force(curves, {"weights": limit}, lambda choice: agrees(curves, choice))
    if best is None:
        with pytest.raises(FewerError, match="smallest reachable"):
            allocate(curves, f"weights={share * 100}%")
        return
    found = allocate(curves, [f"weights={share * 100}%"])
    assert agrees(curves, found.choice)
    assert found.distortion == pytest.approx(best, abs=1e-9)
    assert found.cost["weights"] <= limit + 1e-9


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 1.0), st.floats(0.5, 1.0))
def test_two_budgets_are_planned_as_well_as_by_trying_everything(seed: int, first: float, second: float) -> None:
    curves = coupled_curves(seed)
    limits = {"weights": first * curves.dense("weights"), "latency": second * curves.dense("latency")}
    best = brute_force(curves, limits, lambda choice: agrees(curves, choice))
    budgets = [f"weights={first * 100}%", f"latency={second}x"]
    if best is None:
        with pytest.raises(FewerError):
            allocate(curves, budgets)
        return
    found = allocate(curves, budgets)
    assert agrees(curves, found.choice)
    assert found.distortion == pytest.approx(best, abs=1e-9)


def test_without_the_coupling_the_plan_would_not_agree() -> None:
    apart = 0
    for seed in range(20):
        curves = coupled_curves(seed)
        free = Problem.build(curves, "weights=100%", folded=False)
        apart += not agrees(curves, free.distortion.argmin(axis=1)) or not agrees(curves, free.cost[0].argmin(axis=1))
    assert apart > 10


def test_a_frontier_and_an_iterative_schedule_stay_in_step() -> None:
    curves = coupled_curves(3, groups=4, alone=2)
    for plan in frontier(curves, "weights", [0.9, 0.6, 0.4]):
        assert plan is None or agrees(curves, plan.choice)
    first = allocate(curves, "weights=70%")
    sparser = [c.options[k].sparsity for c, k in zip(curves.curves, first.choice, strict=True)]
    then = allocate(curves, "weights=60%", at_least=first.choice)
    assert agrees(curves, then.choice)
    for curve, k, low in zip(curves.curves, then.choice, sparser, strict=True):
        assert curve.options[k].sparsity >= low


def test_everything_dense_is_planned_when_nothing_has_to_go() -> None:
    curves = coupled_curves(1)
    assert not allocate(curves, "weights=100%").choice.any()


def test_local_search_proposes_only_what_agrees() -> None:
    curves = coupled_curves(5, groups=3, alone=3)
    start = allocate(curves, "weights=80%")
    tried: list[np.ndarray] = []

    def fitness(choice: np.ndarray) -> float:
        tried.append(choice)
        return curves.distortion(choice) + float(np.sin(choice).sum())

    best, _ = local_search(curves, "weights=80%", start, fitness, evaluations=15)
    assert len(tried) > 3 and all(agrees(curves, c) for c in tried)
    assert agrees(curves, best.choice)


def test_baselines_stay_in_step() -> None:
    for seed in range(8):
        curves = coupled_curves(seed, groups=3)
        try:
            found = choose(curves, [b for b in _budgets("weights=75%")], "uniform")
        except FewerError:
            continue
        assert agrees(curves, found.choice)
        assert found.cost["weights"] <= 0.75 * curves.dense("weights")


def _budgets(text: str):
    from fewer.core.budget import parse_budgets

    return parse_budgets(text)


def test_in_step_keeps_the_precision_where_it_can() -> None:
    rows = [Option(), Option(precision="int8"), Option("rows:4", 0.5), Option("rows:4", 0.5, "int8")]
    columns = [Option(), Option("columns:4", 0.5), Option("columns:4", 0.5, "int8")]
    assert in_step([rows, columns], [(0, 1)], np.array([1, 1])).tolist() == [3, 1]
    assert in_step([rows, columns], [(0, 1)], np.array([1, 0])).tolist() == [1, 0]


def test_curves_keep_their_groups_on_disk_and_refuse_wrong_ones(tmp_path) -> None:
    curves = coupled_curves(0)
    again = CurveSet.load(curves.save(tmp_path / "curves.npz"))
    assert again.coupled == curves.coupled and again.hash() == curves.hash()
    with pytest.raises(FewerError, match="in no coupled group"):
        CurveSet(curves.curves)
    with pytest.raises(FewerError, match=r"did you mean 'g0\.0'"):
        CurveSet(curves.curves, coupled=(("g0.00", "g0.1"),))
    with pytest.raises(FewerError, match="same shares"):
        CurveSet(curves.curves, coupled=(*curves.coupled[:-1], (*curves.coupled[-1], "alone0")))
    with pytest.raises(FewerError, match="two coupled groups"):
        CurveSet(curves.curves, coupled=(*curves.coupled, ("alone0", "alone0")))


def test_a_plan_edited_out_of_step_is_refused() -> None:
    curves = coupled_curves(0)
    plan = Plan.from_allocation(curves, "weights=100%", allocate(curves, "weights=100%"))
    last = curves.coupled[0][-1]
    edited = plan.units | {last: plan.units[last].model_copy(update={"option": "columns:2@0.5"})}
    with pytest.raises(FewerError, match=f"'{last}' are coupled.*{last} is columns:2@0.5"):
        plan.model_copy(update={"units": edited}).refreshed(curves)
