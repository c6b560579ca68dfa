"""Latency of options: the sum of what the layers take is what the whole model takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewer.core.option import Option
from fewer.cost.latency import measure_model
from fewer.cost.profile import DeviceProfile
from fewer.cost.stopwatch import Stopwatch, Timing
from fewer.cost.subjects import AS_IT_CAME, find_subjects, random_mask
from fewer.kernels import native
from fewer.kernels.accelerate import accelerate
from fewer.models.matching import match
from tests.kernels.test_accelerate import Net

OPTIONS = (Option(), Option("dense", precision="int8"), Option("block:16x4", 0.5, "int8"), Option("block:16x4", 0.9))


@pytest.fixture
def times(device, net):
    if not native.available():
        pytest.skip("the native library is not built")
    x = torch.randn(8, 32)
    return measure_model(DeviceProfile.here(), net, match(net, x).units, x, patterns=("block:16x4",))


def total(costs, index):
    return costs.fixed + sum(row[index] for row in costs.units.values())


def test_the_dense_model_takes_what_was_measured(times):
    costs = times.costs({name: OPTIONS for name in times.subjects})
    assert costs.came == pytest.approx(times.dense_ms()) == 60.0
    # a layer that keeps its weights still runs on the quickest kernel for them
    assert total(costs, 0) == pytest.approx(times.profile.ms(times.whole, "accelerated fp32"))
    # every layer on its int8 kernel: the whole model was measured like that
    assert total(costs, 1) == pytest.approx(times.profile.ms(times.whole, "accelerated int8"))


def test_inside_a_model_a_layer_gains_as_much_as_the_model_does(times):
    costs = times.costs({name: (Option(), Option("block:16x4", 0.75, "int8")) for name in times.subjects})
    measured = times.profile.ms(times.whole, "accelerated int8 block:16x4@0.75")
    # the model gains 20 times what a layer gains alone, so the bound on that correction holds it back
    alone = [times.alone(n, Option("dense", precision="int8")) for n in times.subjects]
    sparse = [times.alone(n, Option("block:16x4", 0.75, "int8")) for n in times.subjects]
    expected = times.profile.ms(times.whole, "accelerated int8") - 1.5 * (sum(alone) - sum(sparse))
    assert total(costs, 1) == pytest.approx(expected) and measured < expected


def test_layers_of_the_same_kind_are_timed_once(device, net, times):
    assert len(times.subjects) == 3 and len({s.key for s in times.subjects.values()}) == 2
    points = len(times.profile.points)
    x = torch.randn(8, 32)
    again = measure_model(DeviceProfile.here(), net, match(net, x).units, x, patterns=("block:16x4",))
    assert again.profile.measured == 0 and len(again.profile.points) == points
    other = torch.randn(9, 32)  # another batch is another size of everything
    more = measure_model(DeviceProfile.here(), net, match(net, other).units, other, patterns=("block:16x4",))
    assert more.profile.measured == points


def test_a_layer_outside_of_a_block_never_costs_more_than_as_it_came(times):
    name = next(iter(times.subjects))
    key = times.subjects[name].key
    for point in list(times.profile.points):
        if point.startswith(key) and not point.endswith(AS_IT_CAME):
            times.profile.points[point] = Timing(9.0, 0.01, 5)
    assert times.alone(name, Option("block:16x4", 0.9)) == times.alone(name, Option())


def test_layers_of_a_block_are_told_from_others():
    if not native.available():
        pytest.skip("the native library is not built")
    net, x = Net().eval(), torch.randn(2, 5, 48)
    found = {s.name: s for s in find_subjects(net, match(net, x).units, x)}
    assert found["blocks.0.mlp.fc1"].fused and not found["stem"].fused
    assert found["blocks.0.mlp.fc1"].key == found["blocks.1.mlp.fc1"].key
    assert set(found["blocks.0.mlp.fc1"].ways(None, "bf16")) == {"native bf16"}
    assert set(found["stem"].ways(None, "bf16")) == {"native bf16", "dense bf16"}


def test_a_plan_is_predicted_as_it_is_measured(monkeypatch, tmp_path):
    """The whole chain with the real clock, on a net large enough that overheads do not hide the products."""
    if not native.available():
        pytest.skip("the native library is not built")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(384, 768), nn.GELU(), nn.Linear(768, 384), nn.GELU(), nn.Linear(384, 768)).eval()
    x = torch.randn(128, 384)
    profile = DeviceProfile.here()
    found = measure_model(profile, net, match(net, x).units, x, patterns=("block:16x4",), precisions=("fp32",))
    options = {name: Option("block:16x4", s) for name, s in zip(found.subjects, (0.4, 0.6, 0.9), strict=True)}
    costs = found.costs({n: (Option(), o) for n, o in options.items()})
    masks = {n: random_mask(net.get_submodule(n).weight.shape, o) for n, o in options.items()}
    fast, _ = accelerate(net, masks, example=x, budget_ms=5)
    watch = Stopwatch(profile.reference_ms)
    measured = watch.time({"plan": lambda: fast(x)}, budget_ms=200)["plan"].ratio * watch.reference_ms
    # within a quarter here, as the test machine may be busy; the benchmark holds it to a tenth
    assert total(costs, 1) == pytest.approx(measured, rel=0.25)
    # how much is won, the processor decides: without AVX-512 a layer at 0.4 wins nothing, and the plan keeps it dense
    assert total(costs, 1) < total(costs, 0)


def bottleneck() -> nn.Module:
    """A part of an inverted residual network: two stages."""

    def conv(inputs, outputs, kernel=1, groups=1, act=True):
        layer = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs), *([nn.ReLU6()] if act else []))

    def stage(inputs, hidden, outputs):
        return nn.Sequential(conv(inputs, hidden), conv(hidden, hidden, 3, hidden), conv(hidden, outputs, act=False))

    torch.manual_seed(0)
    return nn.Sequential(stage(16, 64, 32), stage(32, 96, 32)).eval()


def test_layers_of_a_native_chain_are_timed_in_their_stage(device):
    if not native.available():
        pytest.skip("the native library is not built")
    net, x = bottleneck(), torch.randn(1, 16, 12, 12)
    found = {s.name: s for s in find_subjects(net, match(net, x).units, x)}
    assert all(s.stage is not None and s.fused for s in found.values()) and len(found) == 6
    for place in ("0", "1"):
        assert sum(s.share for n, s in found.items() if n.startswith(place)) == pytest.approx(1.0)
    expand = found["0.0.0"]
    assert set(expand.ways(None, "int8")) == {"native chain int8"}
    assert set(found["0.1.0"].ways(None, "int8")) == {"native chain depthwise fp32"}
    assert set(expand.lone.ways(None, "int8")) == {"dense folded fp32", "native int8", "dense bf16"}
    # what is run is the stage, from its own input
    stage_out = expand.ways(None, "fp32")["native chain fp32"]()
    torch.testing.assert_close(stage_out, net[0](x), rtol=1e-4, atol=1e-4)


def test_a_stage_gains_what_its_layers_gain(device):
    if not native.available():
        pytest.skip("the native library is not built")
    net, x = bottleneck(), torch.randn(1, 16, 12, 12)
    units = match(net, x).units
    times = measure_model(DeviceProfile.here(), net, units, x, patterns=("block:16x4",))
    subject = times.subjects["0.0.0"]
    dense, low = (times.profile.ms(subject.key, f"native chain {p}") for p in ("fp32", "int8"))
    gained = times.alone("0.0.0", Option("block:16x4")) - times.alone("0.0.0", Option("dense", precision="int8"))
    # made-up times: a stage gains 75 % by int8, more than the layer's share of it
    assert times.alone("0.0.0", Option("block:16x4")) == pytest.approx(subject.share * dense, rel=0.2)
    assert gained == pytest.approx(min(dense - low, subject.share * dense), rel=0.2)
    # the filter between is as it is, whatever its option
    filters = {times.alone("0.1.0", Option("dense", precision=p)) for p in ("bf16", "int8")}
    assert len(filters) == 1 and filters.pop() > 0


def test_channels_that_are_removed_make_their_part_of_a_stage_smaller(device):
    if not native.available():
        pytest.skip("the native library is not built")
    net, x = bottleneck(), torch.randn(1, 16, 12, 12)
    sides = {"0.0.0": "rows", "0.1.0": "rows", "0.2.0": "columns"}
    times = measure_model(DeviceProfile.here(), net, match(net, x).units, x, patterns=("block:16x4",), sides=sides)
    for name, side in sides.items():
        few, half, whole = (times.alone(name, Option(f"{side}:1", s)) for s in (0.75, 0.5, 0.0))
        assert few < half < whole == pytest.approx(times.alone(name, Option("block:16x4")))
