"""Chains of convolutional stages against float64 torch, on every instruction set, and the trace that finds them."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import fx, nn

from fewer.core.errors import FewerError
from fewer.kernels import accelerate as module
from fewer.kernels.accelerate import accelerate
from fewer.kernels.choose import Choice
from fewer.kernels.fuse import find_runs, swap, trace
from fewer.kernels.stages import NativeChain
from fewer.models.mobilenet import InvertedResidual, MobileNetV2

from .conftest import PRECISIONS

# Relative error of the whole output: a few layers of bf16 (2^-9 each) or of int8 (1/254 of the largest value each).
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "int8": 8e-2}


def conv_norm(inputs, outputs, kernel=1, stride=1, groups=1, activation=nn.ReLU6):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        activation(),
    )


def nets() -> dict[str, nn.Module]:
    return {
        "stem, stride and residual": nn.Sequential(
            conv_norm(3, 24, 3, 2),
            InvertedResidual(24, 20, 1, 1),
            InvertedResidual(20, 33, 2, 3),
            InvertedResidual(33, 33, 1, 2),
        ),
        "five by five": nn.Sequential(
            conv_norm(7, 40, activation=nn.SiLU), conv_norm(40, 40, 5, 2, 40, nn.SiLU), conv_norm(40, 9)
        ),
        "depthwise first": nn.Sequential(conv_norm(18, 18, 3, 1, 18, nn.ReLU), conv_norm(18, 5, activation=nn.ReLU)),
        "filter five": nn.Sequential(conv_norm(18, 18, 5, 1, 18, nn.ReLU), conv_norm(18, 5), conv_norm(5, 50)),
    }


def prepare(net: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.copy_(torch.randn(m.num_features, generator=generator) * 0.3)
            m.running_var.copy_(torch.rand(m.num_features, generator=generator) + 0.5)
    return net.eval().requires_grad_(False)


def masks_of(net: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    masks = {}
    for name, m in net.named_modules():
        if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1):
            blocks = torch.rand(-(-m.out_channels // 16), -(-m.in_channels // 4), generator=generator) < 0.5
            mask = blocks.repeat_interleave(16, 0).repeat_interleave(4, 1)[: m.out_channels, : m.in_channels]
            masks[name] = mask[:, :, None, None].contiguous()
    return masks


def chain_of(net: nn.Module, masks=None, precision="fp32") -> NativeChain:
    (run,) = find_runs(fx.symbolic_trace(net))
    assert run.nodes[-1].next.op == "output", "the whole net is one run"
    if precision == "int8":
        precision = {u.name: "bf16" if u.kind == "stem" else "int8" for s in run.stages for u in s.units}
    return NativeChain(run.stages, masks, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", list(nets()))
def test_a_chain_is_the_masked_network(each_isa, name, precision):
    torch.manual_seed(0)
    net = prepare(nets()[name])
    masks = masks_of(net)
    chain = chain_of(net, masks, precision)
    for layer, mask in masks.items():
        net.get_submodule(layer).weight.mul_(mask)
    channels = next(m for m in net.modules() if isinstance(m, nn.Conv2d)).in_channels
    oracle = copy.deepcopy(net).double()
    for batch, rows, columns in ((1, 1, 1), (2, 7, 12), (3, 33, 5), (1, 29, 70)):
        x = torch.randn(batch, channels, rows, columns)
        expected = oracle(x.double())
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            for image in (x, x.to(memory_format=torch.channels_last), torch.cat([x, x], 3)[..., :columns]):
                got = chain(image)
                assert got.shape == expected.shape
                assert float((got - expected).norm() / expected.norm().clamp_min(1e-3)) < TOLERANCE[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nan_reaches_what_depends_on_it_and_nothing_else(each_isa, precision):
    net = prepare(nets()["depthwise first"])
    x = torch.randn(1, 18, 12, 12)
    x[0, 3, 5, 6] = torch.nan
    got = chain_of(net, None, precision)(x).isnan().any(1)[0]
    reached = torch.zeros(12, 12, dtype=torch.bool)
    reached[4:7, 5:8] = True
    assert torch.equal(got, reached)


def test_mobilenet_is_one_run_and_keeps_its_head(lib):
    runs = find_runs(fx.symbolic_trace(MobileNetV2(10).eval()))
    assert [len(run.stages) for run in runs] == [18]
    assert sum(stage.residual for stage in runs[0].stages) == 10


def test_what_is_read_elsewhere_is_not_swallowed(lib):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.b = nn.Conv2d(8, 16, 1)
            self.c = nn.Conv2d(16, 8, 1)

        def forward(self, x):
            middle = self.b(self.a(x))
            return self.c(middle).sum() + middle.sum()

    (run,) = find_runs(fx.symbolic_trace(Net()))
    assert [u.name for s in run.stages for u in s.units] == ["a", "b"]


def test_accelerate_takes_the_chain(lib, monkeypatch):
    def choose(candidates, baseline, **_):
        names = [n for n in candidates if n.startswith(("native chain", "accelerated"))] or [baseline]
        return Choice(names[-1], dict.fromkeys(candidates, 1.0), "chosen by the test")

    monkeypatch.setattr(module, "choose_backend", choose)
    torch.manual_seed(0)
    net = prepare(MobileNetV2(10))
    masks = masks_of(net)
    x = torch.randn(2, 3, 64, 64)
    fast, rows = accelerate(net, masks, example=x)
    for name, mask in masks.items():
        net.get_submodule(name).weight.mul_(mask)
    torch.testing.assert_close(fast(x), net(x), rtol=1e-3, atol=1e-5)
    convolutions = {n for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    chained = {row.name: row for row in rows if row.backend == "native chain"}
    assert convolutions < set(chained)
    assert chained["features.17.conv.2"].skipped == pytest.approx(0.5, abs=0.05)
    again = pickle.loads(pickle.dumps(next(m for m in fast.modules() if isinstance(m, NativeChain))))
    assert again(x).shape == (2, 1280, 2, 2)


def test_bad_input(lib):
    chain = chain_of(prepare(nets()["five by five"]))
    with pytest.raises(FewerError, match="native convolution needs"):
        chain(torch.zeros(1, 8, 4, 4))
    with pytest.raises(FewerError, match="the mask has shape"):
        chain_of(prepare(nets()["five by five"]), {"0.0": torch.ones(3, 3, 1, 1, dtype=torch.bool)})


def test_compile_and_export(lib):
    chain = chain_of(prepare(nets()["stem, stride and residual"]), precision="int8")
    x = torch.randn(1, 3, 20, 20)
    expected = chain(x)
    torch.testing.assert_close(torch.compile(chain, fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.export.export(chain, (x,)).module()(x), expected)


def test_hooks_of_the_whole_model_stay_when_it_is_traced():
    """A pre-processing or a scale that somebody hangs on a model is part of it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1)).eval()
    net.register_forward_pre_hook(lambda _m, args: (args[0] * 0.5,))
    net.register_forward_hook(lambda _m, _args, _kwargs, output: output + 1, with_kwargs=True)
    x = torch.randn(2, 8, 6, 6)
    traced = trace(net)
    assert traced is not None and torch.equal(traced(x), net(x))
    (run,) = find_runs(traced)
    swap(traced, run, "chain", NativeChain(run.stages, {}, {"0": "fp32", "2": "fp32"}))
    with torch.no_grad():
        torch.testing.assert_close(traced(x), net(x), rtol=1e-4, atol=1e-5)
