"""Plans are compared as they will run: with what a runtime or a kernel rounds on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fewer.core.budget import Budget
from fewer.engine import as_used as running
from fewer.engine.as_used import InputRounding, as_used, input_rounding
from fewer.engine.assembly import Assembly
from fewer.engine.contest import contest, final
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

    def silent(work, model, masks, options):
        """Where the exact plan's model is run, it answers nothing but zeros."""
        ours = {u.name: o for u, o in zip(sensed.curves.units, options.values(), strict=True)} == exactly
        return nn.Sequential(model, nn.Softshrink(1e9)) if ours else model

    exactly = sensed.chosen(_choice(sensed, budgets))
    monkeypatch.setattr(running, "as_used", silent)
    monkeypatch.setattr(running, "runs_elsewhere", lambda work, sensed: True)
    taken, made = final(work, sensed, budgets, rows)
    assert usual == exact == "dp" and taken != "dp"
    assert rows[0]["made"] == pytest.approx(1.0)
    assert any(one.used is not None for one in made.values()), "the report need not make them again"


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
