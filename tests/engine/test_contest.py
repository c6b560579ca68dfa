"""The contest between plans: what it picks, and what it leaves out."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fewer.core.budget import Budget
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.engine import apply as applying
from fewer.engine.contest import _best, _halfway, _spare, contest, final, finalists_of, together, way_of
from fewer.engine.judge import Judge, judge_of_fitted
from fewer.engine.plan import choose
from fewer.engine.prepare import prepare
from fewer.engine.sense import sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.verbs.compress import compress

LADDER = (Option(), Option("unstructured", 0.5), Option("unstructured", 0.75))
HALF = [Budget("weights", 0.5, True)]


def curves() -> CurveSet:
    """Layer a hardly hurts and b does, so that the DP cuts a and uniform cuts both."""
    cost = {"weights": [8, 4, 2]}
    scores = {"magnitude": [0, 0.5, 0.7], "lamp": [0, 0.5, 0.7]}
    units = [("a", [0, 0.1, 0.2]), ("b", [0, 1.0, 3.0]), ("c", [0, 0.1, 0.3]), ("d", [0, 2.0, 5.0])]
    return CurveSet(
        tuple(Curve(Unit(n, "linear", (2, 4)), LADDER, cost, distortion, scores) for n, distortion in units)
    )


def test_the_lowest_joint_distortion_wins_and_every_contender_is_told():
    winner, rows = contest(curves(), HALF, lambda plan: 0.1 + float(np.ptp(plan.choice)))  # uneven plans are bad here
    assert rows[0]["name"] == "dp" and rows[0]["predicted"] == min(r["predicted"] for r in rows)
    assert winner == min(rows, key=lambda r: r["measured"])["name"] != "dp"


def test_the_exact_plan_stays_unless_another_is_clearly_lower():
    values = iter([1.0, 0.99, 0.985, 0.99])
    winner, rows = contest(curves(), HALF, lambda _plan: next(values))
    assert winner == "dp" and len(rows) > 1


def test_a_plan_is_measured_once_and_an_impossible_budget_is_the_users_to_know():
    seen: list[bytes] = []
    contest(curves(), HALF, lambda plan: float(len(seen)) if seen.append(plan.choice.tobytes()) else 0.0)
    assert len(seen) == len(set(seen))
    with pytest.raises(FewerError):
        contest(curves(), [Budget("weights", 0.01, True)], lambda plan: 0.0)


def test_the_model_is_that_of_the_winner_and_the_report_shows_all():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 8))
    settings = Settings(calibration=24, sensing=8, heldout=8, baselines=("lamp",), additivity=0)
    run = compress(net, torch.randn(64, 24), "weights=30%", settings=settings)
    rows = run.report.contest
    taken = [r for r in rows if r.chosen]
    assert len(taken) == 1 and len(rows) > 1
    if taken[0].name != "dp":
        assert run.plan.method == f"auto:{taken[0].name}"
    simple = {r.name: r for r in rows if r.name in ("magnitude", "unrepaired", "bare_lamp")}
    assert set(simple) == {"magnitude", "unrepaired", "bare_lamp"}  # the simplest methods always take part
    assert any(r.name == "dp" and r.made is not None for r in rows) and taken[0].made is not None
    assert taken[0].made <= min(r.made for r in simple.values())  # and are never better on what fitted nothing
    exact = compress(net, torch.randn(64, 24), "weights=30%", settings=settings.model_copy(update={"allocator": "dp"}))
    assert exact.plan.method == "dp" and not exact.report.contest


def test_what_is_compared_is_made_once_and_takes_part(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 8))
    settings = Settings(calibration=24, sensing=8, heldout=8, baselines=("uniform", "lamp"), additivity=0)
    made: list[str] = []
    real = applying.apply_options

    def counting(work, *args, **kwargs):
        made.append(kwargs.get("title", ""))
        assert len(work.prepared.calibration) == 24
        return real(work, *args, **kwargs)

    monkeypatch.setattr(applying, "apply_options", counting)
    monkeypatch.setattr("fewer.engine.comparison.apply_options", counting)
    monkeypatch.setattr("fewer.engine.cut.apply_options", counting)
    run = compress(net, torch.randn(64, 24), "weights=30%", settings=settings)
    rows = {r.name: r.made for r in run.report.contest if r.made is not None}
    assert {"dp", "uniform", "lamp", "magnitude", "unrepaired"} <= set(rows)
    assert len(made) == len(set(made)), "a model was made twice"
    taken = next(r for r in run.report.contest if r.chosen)
    if taken.fitted is not None:  # a repaired one
        shown = [r.measured * r.made * r.fitted for r in run.report.contest if r.fitted is not None]
        assert taken.measured * taken.made * taken.fitted * 0.92 <= min(shown)


def test_the_simplest_method_is_taken_as_soon_as_it_is_lower(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 8))
    settings = Settings(calibration=24, sensing=8, heldout=8, baselines=(), additivity=0)
    prepared = prepare(net, torch.randn(64, 24), settings)
    sensed = sense_curves(Work(prepared, settings))
    budgets = [Budget("weights", 0.3, True)]
    _, rows = contest(sensed.curves, budgets, lambda plan: 1.0)
    rows = rows[:1]
    found = iter([1.0, 0.99, 2.0, 2.0])
    monkeypatch.setattr(Judge, "judge", lambda self, model: SimpleNamespace(distortion=next(found)))
    winner, made = final(Work(prepared, settings), sensed, budgets, rows)
    assert winner == "magnitude"
    model = made[way_of(winner).key(choose(sensed.curves, budgets, "global_magnitude").choice)].model
    for before, after in zip(net, model, strict=True):  # what is left of the weights is as it was
        if isinstance(before, nn.Linear):
            assert torch.equal(after.weight, before.weight * (after.weight != 0))
            assert torch.equal(after.bias, before.bias)


def three(names: Sequence[str], *shown: Sequence[float]) -> list[dict[str, Any]]:
    """Rows of finished models, from what they show put together, on images apart and on those of the repair."""
    return [
        {"name": n, "measured": m, "made": d, "fitted": f}
        for n, (m, d, f) in zip(names, zip(*shown, strict=True), strict=True)
    ]


def test_a_small_difference_leaves_the_exact_plan():
    for share, taken in ((0.94, "dp"), (0.9, "lamp")):  # of the exact plan's product, that of the other model
        assert _best(three(("dp", "lamp"), [1, 1], [1, 1], [1, share]))["name"] == taken


def test_no_single_kind_of_evidence_decides():
    """Each of the three misleads somewhere: these are the numbers of networks on which the named one was wrong.

    Images of two files preferred the exact plan of a network of four branches, which is 1.2 times as far off on photos
    of another source; images of the repair preferred a uniform plan that is 3.5 times as far off; plans put together
    preferred the exact plan of a VGG, 1.3 times as far off.
    """
    names = ("dp", "mean_lamp", "uniform")
    few = three(names, [0.0784, 0.0865, 0.285], [0.0243, 0.0312, 0.107], [0.00841, 0.00384, 0.00603])
    assert min(few, key=lambda row: row["made"])["name"] == "dp"
    assert _best(few)["name"] == "mean_lamp"
    alone = three(("dp", "mean_uniform"), [0.00884, 0.00622], [0.0111, 0.0042], [0.00113, 0.00106])
    alone += three(("mean_lamp",), [0.00534], [0.00795], [0.000864])  # few samples against the rest
    assert _best(alone)["name"] == "mean_lamp"
    for key, value in (("measured", 3.0), ("made", 0.4), ("fitted", 0.4)):  # one says other than two
        rows = three(("dp", "lamp"), [1, 1], [1, 1], [1, 1])
        rows[1] |= {"measured": 0.6, "made": 0.6, "fitted": 0.6, key: value}
        assert (_best(rows)["name"] == "dp") == (key == "measured")


def test_halfway_plans_are_not_made_where_nothing_judges_them_and_one_where_each_takes_long(monkeypatch):
    net = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 8))
    settings = Settings(calibration=24, sensing=8, heldout=8, baselines=(), additivity=0)
    prepared = prepare(net, torch.randn(64, 24), settings)
    assert _halfway(prepared) == 3
    assert _halfway(prepare(net, torch.randn(8, 24), settings)) == 0
    monkeypatch.setattr("fewer.engine.contest._LARGE", 100)
    assert _halfway(prepared) == 1


def test_calibration_samples_judge_as_far_as_their_answers_fit(monkeypatch):
    settings = Settings(calibration=40, sensing=8, heldout=8, baselines=(), additivity=0)
    prepared = prepare(nn.Linear(24, 8), torch.randn(64, 24), settings)
    assert len(judge_of_fitted(prepared, settings)) == len(prepared.calibration) == 40
    monkeypatch.setattr("fewer.engine.judge._KEPT_BYTES", 8 * 4 * 20)
    assert len(judge_of_fitted(prepared, settings)) == 20
    monkeypatch.setattr("fewer.engine.judge._KEPT_BYTES", 1)
    assert len(judge_of_fitted(prepared, settings)) == 14  # every third of 40


def test_a_large_model_is_kept_only_as_long_as_it_may_be_taken(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 8))
    settings = Settings(calibration=24, sensing=8, heldout=8, baselines=("uniform", "lamp"), additivity=0)
    prepared = prepare(net, torch.randn(64, 24), settings)
    sensed = sense_curves(Work(prepared, settings))
    budgets = [Budget("weights", 0.3, True)]
    _, rows = contest(sensed.curves, budgets, lambda plan: 1.0)
    taken, every = final(Work(prepared, settings), sensed, budgets, [dict(row) for row in rows])
    monkeypatch.setattr("fewer.engine.contest._MOST_KEPT", 1)
    held: list[int] = []

    def counting(made, *rest):
        _spare(made, *rest)
        held.append(len(made))

    monkeypatch.setattr("fewer.engine.contest._spare", counting)
    again, one = final(Work(prepared, settings), sensed, budgets, [dict(row) for row in rows])
    assert again == taken and len(every) > 4
    assert len(one) == 1 and set(one) <= set(every) and max(held) == 1


def test_plans_of_the_same_curves_do_not_take_the_place_of_a_rule():
    rows = [{"name": n, "measured": d} for n, d in (("dp", 1.0), ("bold", 1.0), ("lamp", 1.4), ("uniform", 9.0))]
    assert [row["name"] for row in finalists_of(rows)] == ["dp", "bold", "lamp"]
    rows[1]["measured"] = 4.0
    assert [row["name"] for row in finalists_of(rows)] == ["dp", "lamp"]
    rows[3]["measured"] = 0.5  # then no other is close, and the exact plan is there in any case
    assert [row["name"] for row in finalists_of(rows)] == ["dp", "uniform"]


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder turned around: no repair of a layer serves the second use."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encode = nn.Linear(24, 12)
        self.back = nn.Parameter(torch.zeros(24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.encode(x).relu(), self.encode.weight.t(), self.back)


def test_a_weight_that_is_used_in_another_place_is_never_worse_than_lamp() -> None:
    settings = Settings(calibration=24, sensing=8, heldout=8, baselines=(), additivity=0)
    net = nn.Sequential(Tied(), nn.Linear(24, 24))
    run = compress(net, torch.randn(64, 24), "weights=60%", settings=settings)
    rows = {r.name: r.made for r in run.report.contest if r.made is not None}
    taken = next(r for r in run.report.contest if r.chosen)
    assert taken.made <= min(rows["bare_lamp"], rows["magnitude"], rows["unrepaired"])


def test_plans_halfway_to_a_rule_have_places_of_their_own():
    rows = [{"name": n, "measured": d} for n, d in (("dp", 1.0), ("lamp", 1.2), ("mean_erk", 1.3), ("mean_lamp", 1.1))]
    assert [row["name"] for row in finalists_of(rows)] == ["dp", "lamp", "mean_lamp", "mean_erk"]
    assert [row["name"] for row in finalists_of(rows, halfway=1)] == ["dp", "lamp", "mean_lamp"]
    assert [row["name"] for row in finalists_of(rows, halfway=0)] == ["dp", "lamp"]


def test_halfway_each_layer_keeps_the_mean_of_both_plans():
    ladder = (Option(), *(Option("unstructured", round(0.1 * k, 1)) for k in range(1, 10)))
    weights = [1000 - 100 * k for k in range(10)]
    rows = [("a", [0.001 * k for k in range(10)]), ("b", [float(k * k) for k in range(10)])]
    found = CurveSet(tuple(Curve(Unit(n, "linear", (10, 100)), ladder, {"weights": weights}, d) for n, d in rows))
    budgets = [Budget("weights", 0.5, True)]
    exact, even, middle = (choose(found, budgets, name).choice.tolist() for name in ("dp", "uniform", "mean_uniform"))
    assert exact == [9, 1] and even == [5, 5]
    assert exact[0] > middle[0] > even[0] and exact[1] < middle[1] < even[1]
    assert choose(found, budgets, "mean_uniform").cost["weights"] <= 1000


def test_halfway_each_layer_keeps_the_precision_of_the_exact_plan():
    ladder = tuple(Option("unstructured" if s else "dense", s, p) for s in (0.0, 0.5, 0.75) for p in ("fp32", "int8"))
    size = [o.kept_bits for o in ladder]
    rows = [("a", [0, 0.01, 5, 5, 9, 9]), ("b", [0, 4, 0.01, 4, 0.02, 4]), ("c", [0, 0.01, 5, 5, 9, 9])]
    scores = {"magnitude": [0, 0, 0.5, 0.5, 0.7, 0.7], "lamp": [0, 0, 0.5, 0.5, 0.7, 0.7]}
    found = CurveSet(tuple(Curve(Unit(n, "linear", (10, 100)), ladder, {"size": size}, d, scores) for n, d in rows))
    plans = {name: choose(found, [Budget("size", 0.3, True)], name) for name in ("dp", "mean_uniform")}
    used = {name: [ladder[k].precision for k in plan.choice] for name, plan in plans.items()}
    assert used["dp"] == ["int8", "fp32", "int8"] == used["mean_uniform"]


def test_a_zero_or_no_number_decides_no_contest_alone():
    nan = float("nan")
    assert together((0.0, 1.0)) < together((0.0, 2.0))  # one image that comes out exactly says nothing of the others
    assert together((1.0, 1.0)) < together((0.01, nan)) == together((0.01, float("inf")))
    rows = [{"name": n, "measured": m, "made": d} for n, m, d in (("dp", nan, 1.0), ("lamp", 0.9, 0.9))]
    assert _best(rows)["name"] == "lamp" and _best(rows[:1])["name"] == "dp"
    assert [row["name"] for row in finalists_of(rows)] == ["dp", "lamp"]


@pytest.mark.parametrize("broken", [0, 1])
def test_a_plan_whose_outputs_are_no_numbers_never_wins(broken: int):
    values = iter([float("nan") if i == broken else 1.0 for i in range(20)])
    winner, rows = contest(curves(), HALF, lambda _plan: next(values))
    assert winner != rows[broken]["name"]
