"""Budgets in time for sequences of several lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fewer
from fewer.cost import profile as profile_module
from fewer.engine import deploy as deploying
from fewer.engine.settings import Settings
from fewer.kernels import native
from fewer.models.spec import load_model
from fewer.runtimes.names import missing
from fewer.tasks.gait.data.dataset import write_sequence
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.gait.simulator import Walkers
from tests.fake_device import FakeWatch
from tests.tasks.gait.test_files import saved

QUICK = Settings(
    calibration=5, sensing=2, heldout=2, batch=2, estimator="taylor", probes=1, sparsities=(0.5, 0.75), allocator="dp",
    search=0, additivity=0, baselines=(), compensation="none", score="magnitude", precisions=("fp32", "int8"),
)  # fmt: skip


@pytest.fixture
def made_up_times(monkeypatch):
    for module in (profile_module, deploying):
        monkeypatch.setattr(module, "Stopwatch", FakeWatch)
    monkeypatch.setattr(FakeWatch, "fast", 14.7)


@pytest.fixture
def walks(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Walkers(seed=0)
    for person in range(4):
        for number, frames in enumerate((12, 12, 17)):
            walk = Walk(f"{person:03d}", f"nm-0{number + 1}", "090")
            write_sequence(tmp_path / "walks", walk, np.asarray(made.sequence(person, walk.kind, "090", frames).frames))
    return tmp_path / "walks"


@pytest.mark.skipif(not native.available(), reason="the native library is not built")
def test_a_network_is_planned_for_time_on_own_kernels(walks, made_up_times, tmp_path):
    run, _ = saved(tmp_path / "run", "gaitbase")
    settings = QUICK.model_copy(update={"runtime": "native", "pattern": "block:16x4"})
    done = fewer.compress(str(run), str(walks), "latency=0.6x", out=tmp_path / "cheap", settings=settings)
    assert done.plan.cost["latency"] <= 0.6 * done.plan.dense["latency"] * (1 + 1e-6)
    assert done.report.latency is not None
    plain = load_model(str(tmp_path / "cheap")).model
    for frames in (3, 12, 31):
        x = torch.rand(1, frames, 64, 44)
        with torch.no_grad():
            assert torch.allclose(plain(x), done.fast(x), atol=0.05)


@pytest.mark.skipif(missing("onnxruntime") is not None, reason="onnxruntime is not installed")
def test_a_file_of_a_runtime_takes_every_length(walks, tmp_path, recwarn):
    run, _ = saved(tmp_path / "run", "gaitbase")
    settings = QUICK.model_copy(update={"runtime": "onnxruntime"})
    done = fewer.compress(str(run), str(walks), "latency=1s", out=tmp_path / "cheap", settings=settings)
    again = fewer.load(tmp_path / "cheap", runtime="onnxruntime")
    plain = load_model(str(tmp_path / "cheap")).model
    for frames in (3, 12, 17, 40):
        x = torch.rand(2, frames, 64, 44)
        with torch.no_grad():
            assert torch.allclose(done.fast(x), again(x))
            assert float((plain(x) - again(x)).norm() / plain(x).norm()) < 0.1
    assert not [w for w in recwarn if "run in torch" in str(w.message)]
