"""The power term: what it adds to the distortion, which way it pulls, and that it pays for nothing but power."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.allocation.allocate import allocate
from fewer.core.allocation.power import power_shares, power_weight, with_power
from fewer.core.budget import Budget
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.engine.plan import choose, frontier_of

SPARSITIES = [round(0.1 * i, 1) for i in range(1, 10)]
OPTIONS = (Option(), *(Option("block:16x16", s) for s in SPARSITIES))


def curve(name: str, rows: int, cols: int, distortion: float, metric: str = "flops") -> Curve:
    kept = np.array([1 - o.sparsity for o in OPTIONS])
    cost = {metric: rows * cols * kept, "weights": rows * cols * kept}
    return Curve(Unit(name, "linear", (rows, cols)), OPTIONS, cost, distortion * (1 - kept) ** 2)


@pytest.fixture
def curves() -> CurveSet:
    return CurveSet((curve("qkv", 192, 64, 1.0), curve("fc1", 256, 64, 1.3), curve("fc2", 64, 256, 1.2)))


def left(curves: CurveSet, choice: np.ndarray, name: str) -> float:
    at = [u.name for u in curves.units].index(name)
    return 1 - OPTIONS[int(choice[at])].sparsity


def drawn(curves: CurveSet, choice: np.ndarray) -> float:
    return sum(float(p[k]) for p, k in zip(power_shares(curves), choice, strict=True))


def test_the_linear_count_is_connections_times_inputs(curves):
    counts = np.array([192 * 64 * 64, 256 * 64 * 64, 64 * 256 * 256], dtype=float)
    found = power_shares(curves)
    np.testing.assert_allclose([f[0] for f in found], counts / counts.sum())
    np.testing.assert_allclose(found[0], found[0][0] * (1 - np.array([0, *SPARSITIES])))


def test_modelled_joules_go_before_the_count():
    curves = CurveSet((curve("a", 64, 64, 1.0, "energy"), curve("b", 64, 256, 1.0, "energy")))
    np.testing.assert_allclose([p[0] for p in power_shares(curves)], [0.2, 0.8])
    # budget and power are then the same thing, and the term says nothing
    for plain, added in zip(curves.curves, with_power(curves, "energy", 5.0).curves, strict=True):
        np.testing.assert_allclose(added.distortion, plain.distortion, atol=1e-12)


def test_fewer_bits_draw_less():
    options = (Option(), Option("dense", precision="int8"), Option("block:16x16", 0.5, "int8"))
    one = Curve(Unit("a", "linear", (16, 16)), options, {"weights": [256, 256, 128]}, [0, 0.1, 0.2])
    np.testing.assert_allclose(power_shares(CurveSet((one,)))[0], [1, 0.25, 0.125])


def test_the_power_falls_as_its_weight_rises(curves):
    """The sign: at the same budget the most power-hungry layer keeps less and less, and with it the whole model."""
    plans = [allocate(with_power(curves, "flops", w), "flops=60%").choice for w in (-1.0, 0.0, 0.2, 1.0, 5.0)]
    kept = [left(curves, p, "fc2") for p in plans]
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[1] > kept[-1]
    powers = [drawn(curves, p) for p in plans]
    assert powers == sorted(powers, reverse=True) and powers[0] > powers[1] > powers[-1]


def test_at_a_fixed_slope_more_weight_never_keeps_more_of_the_hungriest_layer(curves):
    fc2 = 2
    for slope in (0.0, 0.3, 1.0, 3.0):
        gone = []
        for weight in (0.0, 0.1, 0.3, 1.0, 3.0):
            c = with_power(curves, "flops", weight).curves[fc2]
            share = c.cost["flops"] / curves.dense("flops")
            gone.append(OPTIONS[int(np.argmin(c.distortion + slope * share))].sparsity)
        assert gone == sorted(gone)


def test_the_term_does_not_pay_for_going_below_the_budget(curves):
    """A mean over layers of power less cost is 0, so cutting every layer alike gains nothing."""
    added = with_power(curves, "flops", 2.0)
    for k in range(len(OPTIONS)):
        assert added.distortion([k] * 3) == pytest.approx(curves.distortion([k] * 3))
    found = allocate(with_power(curves, "flops", 1.0), "flops=70%")
    assert found.cost["flops"] > 0.6 * curves.dense("flops")


def test_the_planner_states_the_distortion_alone(curves):
    budget = [Budget("flops", 0.6, True)]
    plain, weighed = choose(curves, budget, "dp"), choose(curves, budget, "dp", power=1.0)
    assert weighed.distortion == pytest.approx(curves.distortion(weighed.choice)) and weighed.bound == -np.inf
    assert plain.distortion < weighed.distortion
    points = frontier_of(curves, "flops", [0.05, 0.6], power=1.0)
    assert points[0] is None and points[1] is not None
    assert points[1].choice.tolist() == weighed.choice.tolist() and points[1].distortion == weighed.distortion


def test_the_weight_equalises_the_steepest_slopes(curves):
    # distortion * s^2 rises by distortion * (0.9^2 - 0.8^2) / 0.1 in its last step
    steepest = np.mean([1.0, 1.3, 1.2]) * 1.7
    assert power_weight(curves) == pytest.approx(steepest / (1 / 3))


def test_a_weight_that_is_no_number_is_refused(curves):
    with pytest.raises(FewerError, match="finite"):
        with_power(curves, "flops", float("nan"))
    with pytest.raises(FewerError, match="latency"):
        with_power(curves, "latency", 1.0)
