"""Budgets in time for sequences of several lengths."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fewer
from fewer.core.errors import FewerError
from fewer.cost import profile as profile_module
from fewer.data.samples import ListSamples
from fewer.engine import deploy as deploying
from fewer.engine.runtime_deploy import range_images
from fewer.engine.runtimes import deploy_example, free_axes, planned_graph
from fewer.engine.settings import Settings
from fewer.kernels import native
from fewer.models.spec import load_model
from fewer.runtimes.planned import PlannedGraph
from fewer.tasks.gait.data.dataset import write_sequence
from fewer.tasks.gait.networks import build_network
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
    assert done.report.latency is not None and any(
        o.sparsity > 0 or o.precision != "fp32" for o in done.plan.options().values()
    )
    plain = load_model(str(tmp_path / "cheap")).model
    for frames in (3, 12, 31):
        x = torch.rand(1, frames, 64, 44)
        with torch.no_grad():
            assert torch.allclose(plain(x), done.fast(x), atol=0.05)


def work_of(model, lengths) -> Any:
    walks = [torch.full((frames, 64, 44), float(frames)) for frames in lengths]
    prepared = SimpleNamespace(
        calibration=ListSamples(walks), loaded=SimpleNamespace(task="gait"), model=model, shared={}
    )
    return SimpleNamespace(prepared=prepared, settings=Settings(deploy_batch=2))


def test_what_is_timed_has_the_middle_length_and_ranges_come_from_what_is_most_usual():
    work = work_of(build_network({"size": "tiny"}).eval(), [9, 30, 12, 12, 50])
    assert deploy_example(work).shape == (2, 12, 64, 44) and float(deploy_example(work).max()) == 12
    assert free_axes(work) == {1: "frames"}
    assert range_images(work.prepared).shape == (2, 12, 64, 44)


def test_a_file_for_one_length_is_none_for_walks_of_several(monkeypatch):
    net, seen = build_network({"network": "gaitpart", "size": "tiny"}).eval(), []

    def exported(model, names, example, free, images):
        seen.append(free)
        return SimpleNamespace(free=())

    monkeypatch.setattr(PlannedGraph, "of", exported)
    work = work_of(net, [9, 30])
    work.prepared.matched = SimpleNamespace(units=[])
    for _ in range(2):
        with pytest.raises(FewerError, match="takes samples of one shape alone"):
            planned_graph(work)
    assert seen == [{1: "frames"}]  # it is not exported twice
    work = work_of(net, [9, 9])
    work.prepared.matched = SimpleNamespace(units=[])
    assert planned_graph(work).free == ()
