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
        run("cycles=0.7x", accelerator="edge-np")
