"""accelerate(): the right layers are replaced, the result is the masked model, and every decision has a reason."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.kernels import accelerate as module
from fewer.kernels.accelerate import accelerate
from fewer.kernels.choose import Choice, choose_backend
from fewer.kernels.conv import BlockSparseConv2d
from fewer.kernels.linear import BlockSparseLinear
from fewer.kernels.transformer import NativeBlock
from fewer.models.plain import own_copy

from ..models.test_functional import Net as Functional
from .conftest import PRECISIONS, block_mask
from .test_transformer import Block


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(48, 64)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean(1))


def masks_of(net: nn.Module, sparsity: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: block_mask(*m.weight.shape, 16, 16, sparsity, generator)
        for name, m in net.named_modules()
        if isinstance(m, nn.Linear) and name.startswith("blocks")
    }


@pytest.fixture
def always_fastest(monkeypatch):
    """The last candidate wins, whatever the clock says: for tests of what is built, not of how fast it is."""

    def choose(candidates, baseline, **_):
        names = [n for n in candidates if n.startswith(("native", "accelerated"))] or list(candidates)
        return Choice(names[-1], dict.fromkeys(candidates, 1.0), "chosen by the test")

    monkeypatch.setattr(module, "choose_backend", choose)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_result_is_the_masked_model(lib, always_fastest, precision):
    torch.manual_seed(0)
    net = Net().eval()
    before = {name: p.clone() for name, p in net.named_parameters()}
    masks = masks_of(net, 0.5)
    x = torch.randn(3, 20, 48)
    fast, rows = accelerate(net, masks, example=x, precision=precision)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters()), "the original was changed"
    for name, mask in masks.items():
        net.get_submodule(name).weight.mul_(mask)
    expected = net(x)
    assert float((fast(x) - expected).norm() / expected.norm()) < {"fp32": 1e-5, "bf16": 2e-2, "int8": 5e-2}[precision]
    assert sum(isinstance(m, NativeBlock) for m in fast.modules()) == 2
    by_name = {row.name: row for row in rows}
    assert set(by_name) == set(masks) | {"blocks.0", "blocks.1", "stem", "head", ""}
    assert by_name["blocks.0.mlp.fc1"].skipped == pytest.approx(
        1 - float(masks["blocks.0.mlp.fc1"].float().mean()), abs=0.05
    )
    json.dumps([row.as_dict() for row in rows])


def test_layers_may_have_their_own_precisions(lib, always_fastest):
    torch.manual_seed(0)
    net = Net().eval()
    precisions = {"blocks.0.mlp.fc1": "int8", "head": "bf16"}
    _, rows = accelerate(net, example=torch.randn(2, 5, 48), precision=precisions)
    found = {row.name: row.precision for row in rows}
    assert found["blocks.0.mlp.fc1"] == found["blocks.0"] == "int8" and found["blocks.0.mlp.fc2"] == "fp32"
    assert found["blocks.1"] == found["stem"] == "fp32" and found["head"] == "bf16"
    with pytest.raises(FewerError, match="unknown precision 'int2'"):
        accelerate(net, example=torch.randn(2, 5, 48), precision={"head": "int2"})


def test_an_unstructured_mask_says_that_it_saves_no_work(lib):
    net = nn.Sequential(nn.Linear(64, 64))
    masks = {"0": torch.rand(64, 64) > 0.5}
    _, rows = accelerate(net, masks, example=torch.randn(8, 64), budget_ms=1)
    assert "its zeros save no work" in rows[0].reason
    assert rows[0].sparsity == pytest.approx(0.5, abs=0.05) and rows[0].skipped == 0


def test_a_layer_that_does_not_gain_stays_dense(monkeypatch):
    choice = choose_backend(
        {"dense fp32": lambda: None, "native fp32": lambda: sum(range(50_000))}, "dense fp32", budget_ms=1
    )
    assert choice.name == "dense fp32" and "no gain" in choice.reason
    # a gain below the margin is noise
    from fewer.kernels import choose

    monkeypatch.setattr(choose, "measure", lambda candidates, **_: {"dense fp32": 1.0, "native fp32": 0.97})
    assert choose_backend({"dense fp32": print, "native fp32": print}, "dense fp32").name == "dense fp32"


def test_a_block_of_other_structure_is_done_layer_by_layer(lib, always_fastest):
    net = Net().eval()
    net.blocks[1].extra = nn.Identity()
    x = torch.randn(2, 5, 48)
    fast, rows = accelerate(net, masks_of(net, 0.5), example=x)
    assert isinstance(fast.blocks[0], NativeBlock) and isinstance(fast.blocks[1].mlp.fc1, BlockSparseLinear)
    row = next(r for r in rows if r.name == "blocks.1.mlp.fc1")
    assert "blocks.1 is not fused: extra" in row.reason


class RelativePositions(nn.Module):
    """A block as in BEiT: its attention has a table for one number of tokens."""

    def __init__(self, block, tokens):
        super().__init__()
        self.norm1, self.norm2, self.attn, self.mlp = block.norm1, block.norm2, block.attn, block.mlp
        self.table = nn.Parameter(torch.randn(tokens, block.norm1.normalized_shape[0]))

    def forward(self, x):
        x = x + self.attn(self.norm1(x)) + self.table
        return x + self.mlp(self.norm2(x))


def test_a_block_that_knows_one_number_of_tokens_is_done_layer_by_layer(lib, always_fastest):
    net = nn.Sequential(RelativePositions(Block(scale=False), 12)).eval()
    x = torch.randn(2, 12, 64)
    fast, rows = accelerate(net, example=x)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), net(x), atol=1e-3, rtol=1e-3)
    row = next(r for r in rows if r.name == "0.mlp.fc1")
    assert "0 is not fused: its forward pass computes something else" in row.reason


def test_an_unused_layer_is_reported():
    net = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    net.forward = net["a"].forward
    _, rows = accelerate(nn.Sequential(net), example=torch.zeros(1, 4), budget_ms=1)
    assert {r.name: r.reason for r in rows}["0.b"].startswith("the example does not reach this layer")


def test_bad_masks():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    x = torch.zeros(1, 4)
    for masks, words in [
        ({"00": torch.ones(4, 4, dtype=torch.bool)}, "did you mean '0'"),
        ({"1": torch.ones(4, 4, dtype=torch.bool)}, "ReLU"),
        ({"0": torch.ones(4, 5, dtype=torch.bool)}, "must be torch.bool"),
        ({"0": torch.ones(4, 4)}, "must be torch.bool"),
    ]:
        with pytest.raises(FewerError, match=words):
            accelerate(net, masks, example=x)
    with pytest.raises(FewerError, match="unknown precision"):
        accelerate(net, {}, example=x, precision="int4")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_the_library_the_model_still_works(monkeypatch, precision):
    monkeypatch.setattr(module.native, "available", lambda: False)
    net = Net().eval()
    masks = masks_of(net, 0.7)
    x = torch.randn(2, 9, 48)
    fast, rows = accelerate(net, masks, example=x, precision=precision, budget_ms=1)
    for name, mask in masks.items():
        net.get_submodule(name).weight.mul_(mask)
    assert float((fast(x) - net(x)).norm() / net(x).norm()) < 2e-2
    assert not any(row.backend == "native" for row in rows)


class ConvNet(nn.Module):
    """A stem, an inverted residual, and a plain convolution outside of any Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.block = nn.Sequential(
            nn.Sequential(nn.Conv2d(16, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU6()),
            nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False), nn.BatchNorm2d(64), nn.ReLU6()),
            nn.Conv2d(64, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.last = nn.Conv2d(16, 32, 3, groups=2)
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d):
                nn.init.uniform_(m.running_mean, -0.5, 0.5)
                nn.init.uniform_(m.running_var, 0.5, 2)
                nn.init.uniform_(m.weight, 0.5, 2)
                nn.init.uniform_(m.bias, -0.5, 0.5)

    def forward(self, x):
        x = self.stem(x)
        return self.last(x + self.block(x))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_convolutions(lib, always_fastest, monkeypatch, precision):
    monkeypatch.setattr(module, "find_runs", lambda traced: [])  # layer by layer; chains are in test_stages.py
    torch.manual_seed(0)
    net = ConvNet().eval()
    masks = {"block.0.0": torch.rand(4, 16, 1, 1).repeat_interleave(16, 0) > 0.5}
    x = torch.randn(2, 3, 24, 24)
    fast, rows = accelerate(net, masks, example=x, precision=precision)
    net.block[0][0].weight.mul_(masks["block.0.0"])
    expected = net(x)
    assert float((fast(x) - expected).norm() / expected.norm()) < {"fp32": 1e-5, "bf16": 2e-2, "int8": 3e-2}[precision]
    by_name = {row.name: row for row in rows}
    assert by_name["block.0.0"].backend == "native" and by_name["block.0.0"].precision == precision
    assert by_name["block.1.0"].backend == "native depthwise"
    assert "2 groups" in by_name["last"].reason and by_name["last"].backend.startswith("dense")


def test_a_model_that_does_not_gain_stays_as_it_was(lib, monkeypatch):
    def choose(candidates, baseline, **_):
        whole = any(n.startswith("accelerated") for n in candidates)
        return Choice(baseline if whole else list(candidates)[-1], dict.fromkeys(candidates, 1.0), "by the test")

    monkeypatch.setattr(module, "choose_backend", choose)
    net = ConvNet().eval()
    fast, rows = accelerate(net, example=torch.randn(1, 3, 16, 16))
    assert not any(isinstance(m, BlockSparseConv2d) for m in fast.modules())
    assert all(row.backend == "dense" and "the whole model did not gain" in row.reason for row in rows)


@pytest.mark.parametrize("bias", (False, True))
@pytest.mark.parametrize("precision", ("fp32", "int8"))
def test_a_layer_that_is_used_by_its_weight_alone_gets_a_kernel(lib, always_fastest, bias, precision):
    torch.manual_seed(0)
    net, x = own_copy(Functional(bias).eval()), torch.randn(2, 64, 32)
    with torch.no_grad():
        fast, rows = accelerate(net, example=x, precision=precision, budget_ms=1)
        expected = net(x)
        assert not isinstance(fast.a.qkv, nn.Linear), [row.reason for row in rows]
        assert float((fast(x) - expected).norm() / expected.norm()) < {"fp32": 1e-5, "int8": 5e-2}[precision]
