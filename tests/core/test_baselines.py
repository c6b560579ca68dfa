"""Baselines meet every budget, and choose by the rule that carries their name."""

from __future__ import annotations

import numpy as np
import pytest
from core_curves import curve_set, options, small_curves, smooth_curves
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.core.allocation.allocate import allocate
from fewer.core.allocation.baselines import BASELINES, erk, global_magnitude, lamp, uniform, uniform_plus
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit


@pytest.mark.parametrize("name", sorted(BASELINES))
@pytest.mark.parametrize("budget", ["weights=50%", "weights=12%", "latency=0.6x", "weights=40%,latency=0.7x"])
def test_budgets_are_met_tightly_and_the_programme_is_never_worse(name, budget):
    curves = smooth_curves(30, 51, 1)
    found = BASELINES[name].run(curves, budget)
    best = allocate(curves, budget)
    metrics = [b.split("=")[0] for b in budget.split(",")]
    shares = [float(b.split("=")[1].rstrip("%x")) / (100 if "%" in b else 1) for b in budget.split(",")]
    used = [found.cost[m] / (s * curves.dense(m)) for m, s in zip(metrics, shares, strict=True)]
    assert max(used) <= 1
    assert max(used) > 0.97
    assert best.distortion <= found.distortion


@settings(max_examples=100, deadline=None)
@given(small_curves(metrics=("weights", "latency")), st.floats(0.01, 1), st.sampled_from(["uniform", "erk"]))
def test_never_over_budget_on_any_curve(curves, share, name):
    budget = f"latency={share!r}x"
    if curves.dense("latency") == 0:
        return
    try:
        found = BASELINES[name].run(curves, budget)
    except FewerError as error:
        assert "cannot" in str(error)
        return
    assert found.cost["latency"] <= share * curves.dense("latency") * (1 + 1e-12)


def linear(name: str, shape: tuple[int, ...], kind: str = "linear", **scores) -> Curve:
    n = int(np.prod(shape))
    kept = 1 - np.arange(11) / 10
    return Curve(Unit(name, kind, shape), options(11), {"weights": n * kept}, np.arange(11) / 10, scores)


def sparsities(curves, choice):
    return [c.options[k].sparsity for c, k in zip(curves.curves, choice, strict=True)]


def test_uniform_is_uniform():
    curves = CurveSet(tuple(linear(f"l{i}", (10 * (i + 1), 10)) for i in range(5)))
    assert sparsities(curves, uniform(curves, "weights=50%").choice) == [0.5] * 5
    # 55 %: no option of 0.45, so the first units, in order, keep a step more as far as it fits
    found = uniform(curves, "weights=55%")
    assert set(sparsities(curves, found.choice)) == {0.4, 0.5}
    assert found.cost["weights"] <= 0.55 * curves.dense("weights")


def test_uniform_counts_bits():
    choices = (Option(), Option("dense", precision="int8"), Option("unstructured", 0.5))
    curve = Curve(Unit("a", "linear", (10, 10)), choices, {"size": [400, 100, 200]}, [0, 0.1, 0.5])
    assert uniform(CurveSet((curve,)), "size=50%").choice.tolist() == [2]
    assert uniform(CurveSet((curve,)), "size=25%").choice.tolist() == [1]


def test_uniform_plus_protects_the_first_convolution_and_the_last_linear():
    curves = CurveSet(
        (
            linear("embed", (8, 8)),
            linear("stem", (10, 10, 1, 1), "conv2d"),
            linear("body", (100, 100)),
            linear("body2", (100, 100)),
            linear("head", (10, 10)),
        )
    )
    found = sparsities(curves, uniform_plus(curves, "weights=11%").choice)
    assert found[1] == 0.0
    assert found[4] == pytest.approx(0.8)
    assert found[2] >= 0.8 and found[3] >= 0.8
    with pytest.raises(FewerError, match=r"'uniform_plus' cannot meet weights=0\.5%"):
        uniform_plus(curves, "weights=0.5%")


def test_erk_keeps_in_proportion_to_the_sum_of_sizes_and_freezes_the_small():
    shapes = [(4, 4), (40, 40), (80, 20, 3, 3)]
    fine = tuple(Option("unstructured", k / 1000) for k in range(1, 1001))
    curves = CurveSet(
        tuple(
            Curve(
                Unit(str(s), "linear" if len(s) == 2 else "conv2d", s),
                (Option(), *fine),
                {"weights": np.prod(s) * (1 - np.arange(1001) / 1000)},
                np.arange(1001.0),
            )
            for s in shapes
        )
    )
    kept = 1 - np.array(sparsities(curves, erk(curves, "weights=20%").choice))
    share = np.array([sum(s) / np.prod(s) for s in shapes])
    assert kept[0] == 1.0  # would keep more than all
    assert kept[1] / kept[2] == pytest.approx(share[1] / share[2], rel=0.01)


def weights_with_scores(seed: int, score) -> tuple[CurveSet, list[np.ndarray]]:
    """Curves over real random weights, with one option per weight removed."""
    rng = np.random.default_rng(seed)
    weights = [np.sort(np.abs(rng.normal(0, 0.3 + i, 40))) for i in range(4)]
    curves = []
    for i, w in enumerate(weights):
        levels = tuple(Option("unstructured", k / 40) for k in range(1, 40))
        scores = {score[0]: score[1](w)}
        curves.append(
            Curve(
                Unit(f"l{i}", "linear", (4, 10)),
                (Option(), *levels),
                {"weights": 40.0 - np.arange(40)},
                np.arange(40.0),
                scores,
            )
        )
    return CurveSet(tuple(curves)), weights


def lamp_scores(w: np.ndarray) -> np.ndarray:
    return w**2 / np.cumsum((w**2)[::-1])[::-1]


@pytest.mark.parametrize(
    ("allocator", "score"), [(global_magnitude, ("magnitude", lambda w: w)), (lamp, ("lamp", lamp_scores))]
)
def test_thresholds_remove_exactly_the_lowest_scores_of_the_model(allocator, score):
    curves, weights = weights_with_scores(3, score)
    found = allocator(curves, "weights=60%")
    everything = np.concatenate([score[1](w) for w in weights])
    threshold = np.sort(everything)[64]  # 160 weights, 96 stay
    assert found.choice.tolist() == [int((score[1](w) < threshold).sum()) for w in weights]
    assert found.cost["weights"] == 96


def test_missing_scores_and_unreachable_budgets():
    curves = curve_set({"weights": [[10.0, 5.0]]}, [[0.0, 1.0]])
    with pytest.raises(FewerError, match="'lamp' needs the score 'lamp', which unit 'layer0' does not have"):
        lamp(curves, "weights=50%")
    with pytest.raises(FewerError, match="smallest reachable weights is 50 % of dense"):
        uniform(curves, "weights=40%")


def test_monotone_mode():
    curves = smooth_curves(10, 21)
    first = allocate(curves, "weights=70%").choice
    for name, allocator in ((name, row.run) for name, row in BASELINES.items()):
        assert (allocator(curves, "weights=40%", at_least=first).choice >= first).all(), name


def test_latency_that_rises_with_sparsity_is_still_met():
    """A pattern that is slower when half empty: the only plans that fit are dense and nearly empty."""
    curves = curve_set({"latency": [[10.0, 15.0, 12.0, 2.0]] * 3}, [[0.0, 1.0, 2.0, 3.0]] * 3)
    found = uniform(curves, "latency=0.9x")
    assert found.cost["latency"] <= 27
