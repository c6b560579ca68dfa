"""Plans are compared as they will run: with what a runtime or a kernel rounds on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fewer
from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.engine import as_used as running
from fewer.engine import contest as contest_module
from fewer.engine.as_used import InputRounding, as_used, input_rounding, model_in_use
from fewer.engine.assembly import Assembly
from fewer.engine.contest import contest, final
from fewer.engine.judge import judge_of
from fewer.engine.prepare import prepare
from fewer.engine.sense import sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work

FEW: dict[str, Any] = {"calibration": 24, "sensing": 8, "heldout": 8, "baselines": (), "additivity": 0}


class Loud(nn.Module):
    """One input is a thousand times as large as the others: one range for all of them leaves these nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 8)
        with torch.no_grad():
            self.first.weight[:, 0] *= 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        loud = torch.cat([x[:, :1] * 1000, x[:, 1:]], 1)
        return self.last(torch.relu(self.first(loud)))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(64, 16, generator=torch.Generator().manual_seed(1))


def test_an_assembled_plan_rounds_its_inputs(images: torch.Tensor, tmp_path: Path) -> None:
    settings = Settings(**{**FEW, "precisions": ("fp32", "int8")})
    prepared = prepare(Loud(), images, settings)
    work = Work(prepared, settings)
    sensed = sense_curves(work, store=tmp_path)
    int8 = np.array(
        [next(i for i, o in enumerate(c.options) if str(o.precision) == "int8") for c in sensed.curves.curves]
    )
    found = []
    for rounding in (None, InputRounding(running.shown_ranges(work, prepared.model, ["first", "last"]))):
        assembly = Assembly.of(prepared.model, sensed.curves, tmp_path, prepared.example, None, rounding)
        found.append(assembly.distortion(int8, sensed.batches, sensed.reference))
        fp32 = assembly.distortion(0 * int8, sensed.batches, sensed.reference)
        assert fp32 < 1e-9, "a layer in fp32 rounds nothing, and no hook stays behind"
    assert found[1] > 30 * found[0]


def test_what_is_rounded_goes_by_the_runtime(images: torch.Tensor) -> None:
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({}, None),  # a budget that is not in time
        ({"measure": ("latency",)}, None),  # fp32 alone
        ({"measure": ("latency",), "precisions": ("fp32", "int8"), "runtime": "native"}, "tokens"),
        ({"measure": ("latency",), "precisions": ("fp32", "int8"), "runtime": "onnxruntime"}, "ranges"),
        ({"measure": ("latency",), "precisions": ("fp32", "int4")}, "tokens"),  # kernels multiply those as int8
        ({"measure": ("energy",), "precisions": ("fp32", "int8")}, "tokens"),  # what is priced as integers
        ({"measure": ("cycles",), "precisions": ("fp32", "bf16")}, "tokens"),
        ({"precisions": ("fp32", "int8")}, None),  # bytes: weights alone
    ]
    for changes, kind in cases:
        settings = Settings(**{**FEW, "smooth": 0.0, **changes})
        found = input_rounding(Work(prepare(Loud(), images, settings), settings))
        assert (found is None) == (kind is None)
        if found is not None:
            assert set(found.ranges) == ({"first", "last"} if kind == "ranges" else set())


def test_a_plan_that_is_best_in_torch_alone_is_not_taken(images: torch.Tensor, monkeypatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 8))
    settings = Settings(**FEW)
    prepared = prepare(net, images, settings)
    work, budgets = Work(prepared, settings), [Budget("weights", 0.5, True)]
    sensed = sense_curves(work)
    _, rows = contest(sensed.curves, budgets, lambda plan: 1.0)
    rows = [row for row in rows if row["name"] in ("dp", "uniform")]
    usual, made = final(work, sensed, budgets, [dict(row) for row in rows])
    assert all(one.used is None for one in made.values()), "nothing runs elsewhere without a budget in time"
    exact = rows[0]["name"]

    def silent(work, curves, model, masks, options):
        """Where the exact plan's model is run, it answers nothing but zeros."""
        ours = {u.name: o for u, o in zip(sensed.curves.units, options.values(), strict=True)} == exactly
        return nn.Sequential(model, nn.Softshrink(1e9)) if ours else model

    exactly = sensed.chosen(_choice(sensed, budgets))
    monkeypatch.setattr(running, "model_in_use", silent)
    monkeypatch.setattr(running, "runs_elsewhere", lambda work, sensed: True)
    first = [dict(row) for row in rows]
    taken, made = final(work, sensed, budgets, first)
    assert usual == exact == "dp" and taken != "dp"
    assert first[0]["made"] == pytest.approx(1.0)
    assert any(one.used is not None for one in made.values()), "the report need not make them again"

    def fails(work, curves, model, masks, options):
        """The exact plan's model cannot be run there; in torch it would look best."""
        if {u.name: o for u, o in zip(sensed.curves.units, options.values(), strict=True)} == exactly:
            raise FewerError("this operation has no export")
        return model

    monkeypatch.setattr(running, "model_in_use", fails)
    second = [dict(row) for row in rows]
    taken, _ = final(work, sensed, budgets, second)
    assert taken != "dp" and "made" not in second[0], "a number from elsewhere is none"
    monkeypatch.setattr(
        running, "model_in_use", lambda work, curves, model, masks, _: fails(work, curves, model, masks, exactly)
    )
    assert final(work, sensed, budgets, [dict(row) for row in rows])[0] == usual, "where none runs, torch decides"
    monkeypatch.setattr(contest_module, "_MOST_KEPT", 1)
    taken, made = final(work, sensed, budgets, [dict(row) for row in rows])
    assert taken == usual and len(made) == 1, "of large models one is kept"


def _choice(sensed, budgets):
    from fewer.engine.plan import choose

    return choose(sensed.curves, budgets, "dp").choice


def test_a_rival_on_our_kernels_rounds_as_ours_does(images: torch.Tensor) -> None:
    settings = Settings(**{**FEW, "precisions": ("fp32", "int8")})
    prepared = prepare(nn.Sequential(nn.Linear(16, 8)), images, settings)
    work, (unit,) = Work(prepared, settings), prepared.matched.units
    options = {o.precision: o for o in sense_curves(work).options[unit.name] if o.is_dense}
    assert as_used(work, prepared.model, {}, {unit.name: options["fp32"]}) is prepared.model
    fast = as_used(work, prepared.model, {}, {unit.name: options["int8"]})
    assert fast is not prepared.model and fast(images).shape == (64, 8)


class Named(nn.Module):
    """Calls its layers by name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(input=torch.relu(self.first(input=x)))


@pytest.mark.parametrize(("net", "budget"), [(Loud, "energy=0.47x"), (Named, "energy=0.4x")])
def test_what_is_priced_as_integers_is_judged_as_integers(
    net: type[nn.Module], budget: str, images: torch.Tensor
) -> None:
    run = fewer.compress(net(), images, budget=budget, precisions=("fp32", "int8"), sparsities=(), **FEW)
    options = run.plan.options()
    assert {o.precision for o in options.values()} == {"int8"}
    work = Work(run.prepared, Settings(**FEW, precisions=("fp32", "int8"), measure=("energy",)))
    judge = judge_of(run.prepared, work.settings, run.prepared.heldout)
    used = model_in_use(work, run.curves, run.model, run.masks, options)
    found = {name: judge.judge(model).distortion for name, model in (("used", used), ("plain", run.model))}
    assert run.report.verdict.distortion == pytest.approx(found["used"], rel=1e-6)
    assert found["used"] > 1.2 * found["plain"]
    assert all(a is b for a, b in zip(used.parameters(), run.model.parameters(), strict=True))
    assert not any(m._forward_pre_hooks for m in run.model.modules()), "the model that is given out is left alone"
    assert any("round their inputs" in limit for limit in run.report.limits)


def test_bytes_are_planned_without_what_inputs_lose(images: torch.Tensor, tmp_path: Path) -> None:
    settings = Settings(**{**FEW, "precisions": ("fp32", "int8", "int4"), "sparsities": (), "smooth": 0.0})
    found = {}
    for measure in ((), ("energy",)):
        some = settings.model_copy(update={"measure": measure})
        curves = sense_curves(Work(prepare(Loud(), images, some), some)).curves.curves
        found[measure] = {o.precision: float(d) for o, d in zip(curves[0].options, curves[0].distortion, strict=True)}
    assert found["energy",]["int8"] > 3 * found[()]["int8"]
    lost = {p: found["energy",][p] - found[()][p] for p in ("int8", "int4")}
    assert lost["int4"] == pytest.approx(lost["int8"], rel=1e-6), "kernels multiply both as int8"


def test_work_that_goes_on_with_another_reduction_is_that_of_a_new_one(images: torch.Tensor, tmp_path: Path) -> None:
    given: dict[str, Any] = {**FEW, "precisions": ("fp32", "int8"), "measure": ("energy",), "sparsities": ()}
    lost = []
    for reduction, ledger in (("mean", "old"), ("max", "old"), ("max", "new")):
        settings = Settings(**given, reduction=reduction)
        work = Work(prepare(Loud(), images, settings), settings)
        curves = sense_curves(work, ledger_path=tmp_path / f"{ledger}.jsonl").curves.curves
        lost.append([c.distortion.tolist() for c in curves])
    assert lost[1] == lost[2] != lost[0]
