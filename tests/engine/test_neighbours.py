"""Plans where a change of precision between neighbours takes time: the sum of layers alone would be wrong."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.budget import Budget
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.progress import Silent
from fewer.core.unit import Unit
from fewer.cost.device import device_facts
from fewer.engine import deploy as deploying
from fewer.engine.neighbours import AMONG, among, settle_neighbours
from fewer.engine.runtime_costs import shared_switches
from fewer.engine.sense import Sensed
from fewer.engine.settings import Settings
from fewer.engine.work import Work

OPTIONS = (Option(), Option(precision="int8"), Option("block:2x2", 0.5), Option("block:2x2", 0.5, "int8"))
TIMES, SWITCH = (3.0, 2.0, 1.6, 1.1), 0.8


def curves(switch: float = SWITCH, layers: int = 6, distortion=(0.0, 0.01, 0.5, 0.51)) -> CurveSet:
    found = tuple(
        Curve(Unit(f"l{i}", "linear", (4, 4)), OPTIONS, {"latency": TIMES}, [(i + 1) * d for d in distortion])
        for i in range(layers)
    )
    device = {"device": device_facts(1), "switch": {f"l{i}": switch for i in range(layers)}}
    return CurveSet(found, meta={"device": device})


def true_ms(options) -> float:
    """Time of a chain: a change of precision between two neighbours takes what one layer's change takes, by halves."""
    kinds = [o.precision == "int8" for o in options.values()]
    changes = sum(a != b for a, b in zip([False, *kinds], [*kinds, False], strict=True))
    return sum(TIMES[OPTIONS.index(o)] for o in options.values()) + changes * SWITCH / 2


@pytest.fixture
def settled(monkeypatch):
    monkeypatch.setattr(deploying, "trial_ms", lambda work, options, *_: true_ms(options))

    def run(budget: str, found: CurveSet | None = None):
        found = curves() if found is None else found
        sensed = Sensed(found, {c.unit.name: c.options for c in found.curves}, (), None, {})
        work = Work(None, Settings(), Silent())
        return settle_neighbours(work, sensed, [Budget.parse(budget)])

    return run


def test_costs_of_a_layer_among_others():
    for kind, expected in zip(AMONG, ([3.0, 2.8, 1.6, 1.9], [3.8, 2.0, 2.4, 1.1]), strict=True):
        priced = among(curves(), kind)
        assert all(c.cost["latency"].tolist() == pytest.approx(expected) for c in priced.curves)
        assert priced.meta["device"]["among"] == kind


def test_where_all_layers_become_integers_their_costs_hold_no_change(settled):
    # every layer in int8 takes 12.8 ms; priced as lonely layers that would be 16.8
    result = settled("latency=13.1ms")
    found = result.sensed.curves
    assert found.meta["device"]["among"] == "int8"
    plan = deploying.plan_within(
        Work(None, Settings(), Silent()), found, [Budget.parse("latency=13.1ms")],
        lambda b: deploying_choose(found, b),
    )[0]  # fmt: skip
    assert set(plan.choice) == {1} and np.isclose(plan.distortion, 0.21)
    # the plan was timed, and is what planning goes on with
    assert result.under is not None and result.tried[-1]["measured"] <= 13.1


def deploying_choose(found, budgets):
    from fewer.engine.plan import choose

    return choose(found, budgets, "dp")


def test_where_one_layer_is_enough_its_neighbours_stay_in_floating_point(settled):
    assert settled("latency=17.5ms").sensed.curves.meta["device"]["among"] == "float"


def test_nothing_changes_without_a_budget_in_time_or_switches(settled):
    found = curves()
    assert settled("weights=50%", with_weights(found)).sensed.curves.meta["device"].get("among") is None
    bare = CurveSet(found.curves, meta={"device": {"device": device_facts(1)}})
    assert settled("latency=13ms", bare).sensed.curves is bare


def test_a_time_that_neither_reaches_is_left_for_the_planner_to_refuse(settled):
    found = curves()
    assert settled("latency=1ms", found).sensed.curves is found
    with pytest.raises(FewerError):
        deploying_choose(found, [Budget.parse("latency=1ms")])


def with_weights(found: CurveSet) -> CurveSet:
    changed = [Curve(c.unit, c.options, {**c.cost, "weights": [16, 16, 8, 8]}, c.distortion) for c in found.curves]
    return CurveSet(tuple(changed), meta=found.meta)


def test_switches_of_every_second_layer_add_up_to_what_was_measured():
    units = [Unit(f"l{i}", "linear", (4 + i, 4)) for i in range(5)]
    names = [u.name for u in units]
    found = shared_switches(units, names, 2.0)
    assert sum(found[n] for n in names[1::2]) == pytest.approx(2.0)
    assert found["l4"] > found["l0"] > 0
    assert shared_switches(units[:1], names[:1], 2.0) == {"l0": pytest.approx(16.0)}


def test_where_no_plan_meets_the_time_cuts_that_gain_none_are_not_taken(monkeypatch):
    """A first plan misses the time, and cutting further is no quicker: the first one is kept."""
    monkeypatch.setattr(deploying, "trial_ms", lambda *_: 19.0)
    found = curves()
    budget = Budget.parse("latency=16ms")
    first = deploying_choose(found, [budget])
    plan, under, tried = deploying.plan_within(
        Work(None, Settings(), Silent()), found, [budget], lambda b: deploying_choose(found, b)
    )
    assert len(tried) > 1 and tried[-1]["predicted"] < tried[0]["predicted"]
    assert plan.distortion == first.distortion and [b.value for b in under] == [budget.value]
