"""Budgets in time and energy, on a device whose times are made up: what is offered, planned, checked and reported."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

import fewer
from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.cost import profile as profile_module
from fewer.cost.profile import DeviceProfile
from fewer.engine import comparison, runtimes
from fewer.engine import deploy as deploying
from fewer.engine.device_costs import worth_trying
from fewer.kernels import native
from fewer.kernels.linear import BlockSparseLinear
from tests.fake_device import FakeWatch
from tests.support.nets import quick

pytestmark = pytest.mark.skipif(not native.available(), reason="the native library is not built")


class Wide(nn.Module):
    """Two layers of whole blocks; it stands in a module, so that it can be loaded again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(48, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.a(x).relu()).relu())


def wide() -> Wide:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Wide().eval()


X = torch.randn(24, 48, generator=torch.Generator().manual_seed(0))
OPTIONS = {"pattern": "block:16x4,block:16x16", "precisions": ("fp32", "int8"), "sparsities": (0.25, 0.5, 0.75)}


@pytest.fixture
def device(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(profile_module, "Stopwatch", FakeWatch)
    monkeypatch.setattr(deploying, "Stopwatch", FakeWatch)
    monkeypatch.setattr(runtimes, "missing", lambda name: "left out here")  # the fake device has kernels only
    monkeypatch.setattr(FakeWatch, "fast", 10.0)
    return FakeWatch


def compress(budget, **changes):
    return fewer.compress(wide(), X, budget, settings=quick(**{**OPTIONS, **changes}))


def test_the_whole_way_from_a_budget_in_time_to_a_model_that_is_loaded_fast(device, tmp_path):
    device.fast = 6.45  # as predicted, so that nothing is corrected
    run = fewer.compress(wide(), X, "latency=0.22x", settings=quick(**OPTIONS), out=tmp_path / "run")
    assert run.plan.cost["latency"] <= 0.22 * run.plan.dense["latency"] == pytest.approx(13.2)
    options = run.plan.options()
    assert {o.precision for o in options.values()} <= {"fp32", "int8"} and any(not o.is_dense for o in options.values())
    assert run.report.latency is not None and run.report.latency.measured_ms == pytest.approx(12.9)
    # corrected at most by what another plan that was timed missed
    assert run.report.latency.predicted_ms == pytest.approx(run.plan.cost["latency"], rel=0.03)
    reached = run.report.verdict.budgets[0]
    assert (reached.metric, reached.unit) == ("latency", "ms") and run.report.verdict.met
    assert reached.reached == run.report.latency.measured_ms
    # weights have the values that the kernels multiply with, in the file, too
    loaded = fewer.load(tmp_path / "run", Wide)
    for name, option in options.items():
        weight = loaded.get_submodule(name).weight
        levels = weight / weight.abs().amax(1, keepdim=True).clamp_min(1e-9) * 64
        if option.precision == "int8":
            torch.testing.assert_close(levels.round(), levels, atol=1e-3, rtol=0)
    fast = fewer.load(tmp_path / "run", Wide, accelerated=True, example=X[:1])
    precise = max(float((fast(X) - loaded(X)).norm() / loaded(X).norm()), 0.0)
    assert precise < 0.05
    assert all(m.precision == options[n].precision for n, m in fast.named_modules() if isinstance(m, BlockSparseLinear))
    # another budget from the same curves, without torch or timing
    smaller = fewer.plan(tmp_path / "run", "latency=0.21x")
    assert smaller.cost["latency"] <= 12.6 and smaller.distortion >= run.plan.distortion


def test_all_of_the_time_changes_nothing(device):
    run = compress("latency=1.0x")
    assert all(o == Option() for o in run.plan.options().values())
    for name, tensor in wide().state_dict().items():
        assert torch.equal(run.model.state_dict()[name], tensor)


def test_no_time_at_all_says_what_can_be_reached(device):
    with pytest.raises(FewerError, match=r"smallest reachable latency is \d+(\.\d+)? % of dense"):
        compress("latency=0.01x")
    with pytest.raises(FewerError, match=r"smallest reachable latency is .*ms"):
        compress("latency=1us")


def test_every_option_is_quicker_than_the_dense_layer(device):
    run = compress("latency=0.5x")
    for curve in run.curves.curves:
        assert (curve.cost["latency"][1:] < curve.cost["latency"][0]).all()
    assert len(run.curves.curves[0]) > 3


def test_useless_options_are_not_sensed():
    options = [
        Option(),
        Option("dense", 0, "int8"),
        Option("block:16x4", 0.5),
        Option("block:16x4", 0.5, "int8"),
        Option("block:16x1", 0.5),
        Option("block:16x16", 0.5),
        Option("block:32x8", 0.5),
    ]
    # int8 alone is as quick as int8 with half of the blocks gone; coarser blocks are slower or equal
    assert worth_trying(options, [4.0, 1.0, 2.0, 0.999, 2.5, 2.0, 1.9]) == [0, 1, 2, 4, 6]
    # nothing is quicker
    assert worth_trying(options, [1.0] * 7) == [0]
    # patterns of which neither is made of the other's tiles are both tried
    assert worth_trying([Option(), Option("block:16x4", 0.5), Option("block:4x16", 0.5)], [4, 2, 2]) == [0, 1, 2]


def test_a_wrong_prediction_is_corrected_before_the_model_is_made(device, monkeypatch):
    monkeypatch.setattr(deploying, "trial_ms", lambda work, options, *_: 1.2 * trial(options))
    curves = compress("latency=1.0x").curves

    def trial(options):
        choice = [c.options.index(options[c.unit.name]) for c in curves.curves]
        return curves.total("latency", choice)

    run = compress("latency=0.26x")
    plans = run.report.latency.plans
    assert plans[0][1] == pytest.approx(1.2 * plans[0][0]) and plans[0][1] > 15.6
    assert 1.2 * run.plan.cost["latency"] <= 15.6 < 1.2 * plans[0][0]
    # the plan still promises what was asked for
    assert run.plan.budgets == ["latency=0.26x"]


def test_one_timing_takes_only_a_part_of_a_budget_away(device, monkeypatch):
    """Timings that are wrong by a factor of a hundred do not leave a hundredth of the network."""
    monkeypatch.setattr(deploying, "trial_ms", lambda work, options, predicted, *_: 100 * predicted)
    plans = compress("latency=0.4x").report.latency.plans
    for (before, _), (after, _) in pairwise(plans):
        assert after >= 0.5 * before


def test_what_fast_kernels_alone_can_reach_costs_no_weight(device):
    run = compress("latency=0.8x")  # fp32 kernels take 44 of the 60 ms of torch
    assert {str(option) for option in run.plan.options().values()} == {"dense"}
    assert run.plan.cost["latency"] <= 48.0 < run.plan.dense["latency"] == 60.0


def test_rivals_are_held_to_the_corrected_budget(device, monkeypatch):
    seen = []
    monkeypatch.setattr(deploying, "trial_ms", lambda work, options, predicted, *_: 1.2 * predicted)
    original = comparison.choose
    monkeypatch.setattr(
        "fewer.engine.comparison.choose", lambda c, b, n: (seen.append(list(b)), original(c, b, n))[1], raising=True
    )
    run = compress("latency=0.26x", baselines=("uniform",))
    assert seen and all(b.metric == "latency" and not b.relative and b.value < 15.6 for b in seen[0])
    assert run.report.baselines[1].name == "uniform"


def test_a_rule_that_cannot_follow_the_corrected_budget_is_named(device, monkeypatch):
    def stuck(curves, budgets, name):
        raise FewerError(f"{budgets[0]} cannot be met")

    monkeypatch.setattr(deploying, "trial_ms", lambda work, options, predicted, *_: 1.2 * predicted)
    monkeypatch.setattr("fewer.engine.comparison.choose", stuck)
    report = compress("latency=0.26x", baselines=("uniform",)).report
    assert [row.name for row in report.baselines if not row.ours] == []
    assert "cannot be met (of latency=0.26x so much is left after" in report.missing["Uniform"]
    assert any(sentence.startswith("Uniform is missing from the comparison") for sentence in report.limits)


def test_a_profile_of_another_device_plans_for_that_device(device, tmp_path, monkeypatch):
    compress("latency=0.5x")  # fills the cache
    path = DeviceProfile.here().save(tmp_path / "other.json", "other")
    facts = {**DeviceProfile.here().facts, "cpu": "Another CPU"}
    monkeypatch.setattr(profile_module, "device_facts", lambda *_: facts)
    monkeypatch.setattr(deploying, "device_facts", lambda *_: facts)
    run = compress("latency=0.5x", profile=str(path))
    assert run.report.latency is None and run.fast is None
    assert run.report.verdict.budgets[0].reached == run.plan.cost["latency"]
    assert any("another device" in sentence for sentence in run.report.limits)
    with pytest.raises(FewerError, match="has no time for"):
        compress("latency=0.5x", profile=str(path), deploy_batch=2)


def test_energy_is_budgeted_and_called_modelled(device):
    run = compress("energy=0.6x")
    assert run.plan.cost["energy"] <= 0.6 * run.plan.dense["energy"]
    assert any("modelled with the constants 45nm-horowitz" in sentence for sentence in run.report.limits)
    assert run.report.latency is None and run.report.verdict.budgets[0].unit == "J"


def test_several_budgets_hold_at_once(device):
    run = compress(["latency=0.6x", "weights=60%", Budget("energy", 0.5, True)])
    for metric, share in {"latency": 0.6, "weights": 0.6, "energy": 0.5}.items():
        assert run.plan.cost[metric] <= share * run.plan.dense[metric]


def test_what_cannot_be_timed_is_said(device):
    with pytest.raises(FewerError, match="own forward= cannot be timed"):
        fewer.compress(wide(), X, "latency=0.5x", settings=quick(**OPTIONS), forward=lambda m, x: m(x))
    with pytest.raises(FewerError, match="only models in fp32"):
        fewer.compress(wide().double(), X.double(), "latency=0.5x", settings=quick(**OPTIONS))
    with pytest.raises(FewerError, match="known are latency, energy"):
        fewer.Settings.of({"measure": ["time"]})
    with pytest.raises(FewerError, match="unknown precision"):
        fewer.Settings.of({"precisions": ["int8", "fp7x"]})
