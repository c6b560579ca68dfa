"""A budget in cycles of a machine that one does not own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.engine.settings import Settings
from fewer.verbs.compress import compress


def run(budget: str, **more):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
    settings = Settings(
        pattern="block:16x16", estimator="measured", sparsities=(0.25, 0.5, 0.75), calibration=4, sensing=2, heldout=2,
        batch=2, probes=1, search=0, additivity=0, baselines=(), backend="serial", **more,
    )  # fmt: skip
    return compress(net, torch.randn(8, 64), budget, settings=settings)


def test_cycles_are_planned_for_the_machine_that_was_named() -> None:
    done = run("cycles=0.7x", accelerator="vita-like")
    assert done.report.verdict.met
    assert done.plan.cost["cycles"] > 0


def test_a_machine_that_does_not_exist_is_told() -> None:
    with pytest.raises(FewerError, match="did you mean 'edge-npu'"):
        Settings.of({"accelerator": "edge-np"})


def test_joules_are_those_of_the_machine_that_was_named() -> None:
    done = run("energy=0.7x", accelerator="vita-like")
    assert done.report.verdict.met and done.plan.cost["energy"] <= 0.7 * done.plan.dense["energy"]
    assert done.curves.meta["device"]["energy"] == "modelled for the accelerator vita-like"
    assert done.curves.total("energy", [0, 0, 0]) != run("energy=0.7x").curves.total("energy", [0, 0, 0])


def test_the_joint_preset_plans_all_steps_under_one_budget() -> None:
    from fewer.models.vit import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(16, 4, width=32, depth=1, heads=2, num_classes=5).eval()
    more = {"calibration": 6, "sensing": 2, "heldout": 2, "search": 0, "additivity": 0, "backend": "serial"}
    settings = Settings.from_preset("joint", **more, allocator="dp", sparsities=(0.5,))
    done = compress(net, torch.randn(10, 3, 16, 16), "cycles=0.6x", settings=settings)
    assert done.report.verdict.met and done.report.integers
    assert {option.precision for option in done.plan.options().values()} - {"fp32"}
    rows = {row.name: row for row in done.report.baselines}
    assert {"plain", "functions"} <= rows.keys() and rows["functions"].note.startswith("one step of the plan alone")
    assert not rows["functions"].met and rows["functions"].distortion < 2 * rows["plain"].distortion
    cut = {option.sparsity > 0 for option in done.plan.options().values()}
    assert ("cut" in rows and "bits" in rows) == (True in cut)


def test_the_joint_preset_takes_a_network_without_such_functions() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.Hardswish(), nn.Conv2d(32, 32, 3, padding=1),
        nn.GroupNorm(4, 32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip
    more = {"calibration": 6, "sensing": 2, "heldout": 2, "search": 0, "additivity": 0, "backend": "serial"}
    more |= {"allocator": "dp", "sparsities": (0.5,), "precisions": ("fp32", "int8")}
    settings = Settings.from_preset("joint", **more)
    done = compress(net, torch.randn(10, 3, 12, 12), "cycles=0.19x", settings=settings)
    assert done.report.verdict.met and not done.report.integers
    rows = {row.name: row for row in done.report.baselines}
    assert {"cut", "bits"} <= rows.keys() and "functions" not in rows


def test_a_machine_on_paper_may_be_named_as_the_device() -> None:
    settings = Settings.of({"device": "edge-npu"})
    assert (settings.device, settings.accelerator) == ("cpu", "edge-npu")
    assert Settings.of({"device": "cuda:0", "accelerator": "edge-npu"}).device == "cuda:0"


def test_the_page_says_where_cycles_and_joules_go() -> None:
    from fewer.reports.compression.html import render

    done = run("cycles=0.7x,energy=0.9x", device="vita-like", precisions=("fp32", "int8"))
    first = done.report.units[0].modelled
    assert set(first) == {"cycles", "energy"} and 0 < first["cycles"][1] <= first["cycles"][0]
    total = sum(unit.modelled["cycles"][1] for unit in done.report.units)
    assert total == pytest.approx(done.plan.cost["cycles"])
    page = render(done.report)
    assert "Modelled, not measured: the layers take" in page and "joules, modelled" in page
