"""A preset's whole method as a row of another run's report, and the preset of LPViT from end to end."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.engine import as_used
from fewer.engine.rivals import preset_of, rival_settings
from fewer.engine.settings import Settings
from fewer.models.vit import VisionTransformer
from fewer.patterns import to_matrix
from fewer.runtimes.names import EXPORTED, missing

FEW = {"calibration": 12, "sensing": 4, "heldout": 4, "backend": "serial", "additivity": 0, "probes": 2}


@pytest.fixture(scope="module")
def net() -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = VisionTransformer(16, 8, width=32, depth=2, heads=2)
        for parameter in net.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    return net.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_lpvit_preset_meets_its_budget_beside_the_default(net, images):
    run = fewer.compress(net, images, "flops=0.6x", settings=Settings.from_preset("lpvit", **FEW))
    assert run.report.verdict.met
    rows = {row.name: row for row in run.report.baselines}
    assert list(rows) == ["lpvit", "default", "uniform"]
    assert rows["lpvit"].label == "LPViT (preset lpvit)" and rows["lpvit"].compensated is False
    assert rows["default"].label == "fewer (preset default)" and rows["default"].compensated is True
    # repair is worth something, in the same blocks at the same FLOPs
    assert rows["default"].distortion < rows["lpvit"].distortion
    power = next(q for q in run.report.verdict.quality if q.name == "power term")
    assert power.value < 0.6 and "not a measurement" in power.note
    # whole tiles go, and what stays is as it was
    for name, mask in run.masks.items():
        weight = net.get_submodule(name).weight
        assert torch.equal(run.model.get_submodule(name).weight, weight * mask)
        tiles = to_matrix(mask).float().unfold(0, 16, 16).unfold(1, 16, 16).mean((2, 3))
        assert set(tiles.unique().tolist()) <= {0.0, 1.0}


def test_the_row_of_a_preset_is_the_run_of_that_preset(net, images):
    shared = {**FEW, "pattern": "block:16x16", "sparsities": (0.25, 0.5, 0.75)}
    ours = fewer.compress(net, images, "flops=0.6x", settings=Settings(**shared, baselines=("lpvit", "default")))
    own, *_ = ours.report.baselines
    rows = {row.name: row for row in ours.report.baselines}
    assert list(rows) == [own.name, "lpvit"]  # the default is the run itself
    theirs = fewer.compress(net, images, "flops=0.6x", settings=Settings.from_preset("lpvit", **shared, baselines=()))
    assert rows["lpvit"].distortion == pytest.approx(theirs.report.verdict.distortion, rel=1e-6)
    assert own.ours and not rows["lpvit"].ours


def test_settings_of_a_rival_keep_the_data_and_the_options():
    run = Settings(pattern="block:16x4", calibration=7, seed=5, exclude=("head",), score="magnitude", batch=2)
    rival = rival_settings("lpvit", run)
    assert (rival.score, rival.compensation, rival.power) == ("taylor", "none", 1.0)
    same = ("pattern", "calibration", "seed", "exclude", "batch", "sparsities")
    assert all(getattr(rival, n) == getattr(run, n) for n in same)
    assert preset_of(rival) == "lpvit" and preset_of(run) is None


def test_what_cannot_be_a_row_is_refused():
    with pytest.raises(FewerError, match="rounds"):
        Settings.of({"baselines": ["rd-prune"]})
    with pytest.raises(FewerError, match="did you mean 'lpvit'"):
        Settings.of({"baselines": ["lpvi"]})
    with pytest.raises(FewerError, match="power term needs"):
        Settings.of({"power": 1.0, "allocator": "uniform"})
    with pytest.raises(FewerError, match="power"):
        Settings.of({"power": -1.0})


RUNTIME = next((name for name in EXPORTED if missing(name) is None), None)


@pytest.mark.skipif(RUNTIME is None, reason="neither onnxruntime nor OpenVINO is installed")
def test_rivals_are_judged_in_the_runtime_that_ours_is_judged_in(monkeypatch):
    """A runtime that answers nothing but zeros: the rivals' error is 1 as well, and not what torch would make it."""

    class Zeros(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *args):
            return self.model(*args) * 0

    def in_runtime(work, chosen, model, precisions):
        assert chosen.runtime == RUNTIME and set(precisions.values()) <= {"fp32", "bf16", "int8"}
        return Zeros(model), []

    monkeypatch.setattr(as_used, "in_runtime", in_runtime)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 1)
    ).eval()
    settings = fewer.Settings(
        runtime=RUNTIME, precisions=("fp32", "int8"), calibration=8, sensing=2, heldout=4, additivity=0, workers=1,
        baselines=("uniform", "wanda"), estimator="taylor", probes=1, allocator="dp",
    )  # fmt: skip
    run = fewer.compress(net, torch.randn(16, 3, 24, 24), "latency=500ms", settings=settings)
    rows = {row.name: row.distortion for row in run.report.baselines}
    assert rows.pop("dp") < 0.9 and rows
    assert all(distortion == pytest.approx(1.0) for distortion in rows.values())
