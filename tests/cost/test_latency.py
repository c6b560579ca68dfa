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
    assert total(costs, 1) < 0.8 * total(costs, 0)
