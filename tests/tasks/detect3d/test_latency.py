"""Budgets in time for scans, each of which has its own number of points; times are made up."""

from __future__ import annotations

import pytest
import torch
from tests.fake_device import FakeWatch

import fewer
from fewer.core.errors import FewerError
from fewer.cost import profile as profile_module
from fewer.engine import deploy as deploying
from fewer.engine.settings import Settings
from fewer.kernels import native
from fewer.models.spec import load_model
from fewer.tasks.detect3d.networks import build_network, small_config
from fewer.tasks.detect3d.simulator import SENSORS, Streets
from fewer.tasks.detect3d.training import save_detector

pytestmark = pytest.mark.skipif(not native.available(), reason="the native library is not built")
QUICK = Settings(
    calibration=2, sensing=1, heldout=1, batch=1, estimator="taylor", probes=1, sparsities=(0.5, 0.75), allocator="dp",
    search=0, additivity=0, baselines=(), compensation="none", score="magnitude", pattern="block:16x4",
)  # fmt: skip


@pytest.fixture
def scans(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(profile_module, "Stopwatch", FakeWatch)
    monkeypatch.setattr(deploying, "Stopwatch", FakeWatch)
    monkeypatch.setattr(FakeWatch, "fast", 14.7)
    return Streets(SENSORS["hdl-64"].ahead(30).thinned(8), seed=5).write(tmp_path / "kitti", 4, val=0.5)


def detector(folder, network):
    torch.manual_seed(0)
    config = small_config(network, ("Car",)).model_copy(update={"reach": (0, -5.76, -3, 11.52, 5.76, 1)})
    save_detector(folder, build_network(config), None)
    return str(folder)


@pytest.mark.parametrize("network", ["pointpillars", "second"])
def test_a_detector_is_planned_for_time(scans, tmp_path, network):
    run = detector(tmp_path / "run", network)
    done = fewer.compress(run, str(scans), "latency=0.5x", out=tmp_path / "cheap", settings=QUICK)
    assert done.plan.cost["latency"] <= 0.5 * done.plan.dense["latency"]
    assert done.report.latency is not None and done.report.latency.measured_ms == pytest.approx(29.4)
    cut = {name for name, option in done.plan.options().items() if option.sparsity > 0}
    # what the kernels can skip: sparse convolutions, and all that is seen from above
    assert cut and all(name.startswith(("backbone_2d", "backbone_3d", "dense_head")) for name in cut)
    # a scan of another length; and the model found again
    scan = torch.rand(300, 4) * torch.tensor([11, 5, 2, 1])
    fast = fewer.load(tmp_path / "cheap", runtime="native", example=scan[None])
    with torch.no_grad():
        slow = load_model(str(tmp_path / "cheap")).model(scan)["cls_preds"]
        assert torch.allclose(slow, done.fast(scan)["cls_preds"], atol=1e-3)
        assert torch.allclose(slow, fast(scan)["cls_preds"], atol=1e-3)


def test_exported_runtimes_are_refused(scans, tmp_path):
    run = detector(tmp_path / "run", "pointpillars")
    settings = QUICK.model_copy(update={"runtime": "onnxruntime"})
    with pytest.raises(FewerError, match="leave --runtime out"):
        fewer.compress(run, str(scans), "latency=0.5x", settings=settings)
