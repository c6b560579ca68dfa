"""Rules that know one way to cut, on curves that offer several."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.budget import Budget
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.engine.comparison import random_choices
from fewer.engine.plan import choose

OPTIONS = (
    Option(),
    Option("dense", precision="int8"),
    Option("block:16x4", 0.5),
    Option("block:16x4", 0.5, "int8"),
    Option("block:16x1", 0.5),
    Option("block:16x1", 0.5, "int8"),
)


@pytest.fixture
def curves() -> CurveSet:
    cost = {"latency": [8, 4, 4, 2, 5, 3]}
    distortions = {"a": [0, 0.1, 1.0, 1.1, 0.7, 0.8], "b": [0, 0.1, 2.0, 2.1, 1.5, 1.6]}
    return CurveSet(tuple(Curve(Unit(n, "linear", (16, 16)), OPTIONS, cost, h) for n, h in distortions.items()))


def test_a_rule_is_tried_on_every_pattern_and_precision_and_the_best_counts(curves):
    budget = [Budget("latency", 9.9, False)]
    found = choose(curves, budget, "uniform")
    # a rule may round whole layers, too: that takes 8 here and hurts least
    assert [str(OPTIONS[k]) for k in found.choice] == ["dense/int8"] * 2 and found.cost["latency"] == 8.0
    # 16x1 in int8 takes 6 and distorts by 2.4; units take the next step one by one, and that finds less than it here
    found = choose(curves, [Budget("latency", 6.5, False)], "uniform")
    assert found.cost["latency"] <= 6.5 and found.distortion <= 2.4
    assert {OPTIONS[k].precision for k in found.choice} == {"int8"}
    # the exact plan may mix them
    assert choose(curves, budget, "dp").distortion == pytest.approx(0.2)
    with pytest.raises(FewerError, match="cannot be met"):
        choose(curves, [Budget("latency", 1.0, False)], "uniform")


def test_random_plans_take_every_pattern_and_precision(curves):
    drawn = {int(k) for choice in random_choices(curves, 40, seed=0) for k in choice}
    assert drawn == set(range(6))
    assert np.array_equal(random_choices(curves, 3, seed=1)[2], random_choices(curves, 3, seed=1)[2])
