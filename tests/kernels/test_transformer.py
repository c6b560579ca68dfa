"""Attention, LayerNorm and whole blocks against float64 torch, on every instruction set."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewer.core.errors import FewerError
from fewer.kernels import ops, rows
from fewer.kernels.transformer import PATHS, NativeBlock, disagreement, why_not_a_block

from .conftest import PRECISIONS, block_mask

# Largest error of attention on unit-normal inputs, relative to the largest value of V. fp32: sums of a few hundred
# rounded products in two steps. bf16: q, k, v and the probabilities rounded to 8 bits.
ATTENTION_ERROR = {"fp32": 2e-6, "bf16": 2e-2}
# Relative error of a block's update (block(x) - x) in the Frobenius norm, on random weights.
BLOCK_ERROR = {"fp32": 1e-5, "bf16": 1e-2, "int8": 4e-2}


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int, act: nn.Module) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), act, nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, width=64, heads=4, hidden=200, act=None, scale=True) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads), Mlp(width, hidden, act or nn.GELU())
        self.ls1, self.ls2 = (Scale(width), Scale(width)) if scale else (nn.Identity(), nn.Identity())
        self.drop_path1 = nn.Dropout(0.1)
        for norm in (self.norm1, self.norm2):
            nn.init.normal_(norm.weight, 1, 0.2)
            nn.init.normal_(norm.bias, 0, 0.2)

    def forward(self, x):
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.ls2(self.mlp(self.norm2(x)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 1), (2, 3, 17, 17, 64), (1, 2, 5, 300, 24), (2, 1, 197, 197, 64), (1, 1, 33, 2, 7)]
)
def test_attention(each_isa, precision, shape):
    batch, heads, queries, keys, dim = shape
    generator = torch.Generator().manual_seed(keys)
    q = torch.randn(batch, queries, heads, dim, generator=generator).transpose(1, 2)
    k, v = torch.randn(2, batch, heads, keys, dim, generator=generator)
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    for threads in (1, 2):
        torch.set_num_threads(threads)
        got = ops.attention(q, k, v, precision=precision)
        assert float((got - expected).abs().max()) <= ATTENTION_ERROR[precision] * float(v.abs().max())
    low = ops.attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), precision=precision)
    assert low.dtype == torch.bfloat16
    assert float((low - expected).abs().max()) <= 3e-2 * float(v.abs().max())


def test_attention_of_extreme_scores(each_isa):
    q = torch.tensor([[[[300.0]], [[-300.0]]]])
    k = torch.tensor([[1.0], [-1.0], [0.5]]).expand(1, 2, 3, 1)
    v = torch.tensor([[1.0], [2.0], [4.0]]).expand(1, 2, 3, 1)
    assert ops.attention(q, k, v)[0, :, 0, 0].tolist() == [1.0, 2.0]


def test_attention_passes_nan_through_to_its_own_row_only(each_isa):
    q, k, v = torch.randn(3, 1, 2, 20, 16).unbind(0)
    q[0, 1, 7, 3] = math.nan
    got = ops.attention(q, k, v)
    assert bool(got[0, 1, 7].isnan().all())
    got[0, 1, 7] = 0
    assert bool(torch.isfinite(got).all())


def test_attention_compiles(lib):
    q = torch.randn(1, 2, 9, 16)
    expected = ops.attention(q, q, q)
    got = torch.compile(lambda t: ops.attention(t, t, t), fullgraph=True)(q)
    torch.testing.assert_close(got, expected)


def test_bad_attention(lib):
    q = torch.randn(1, 2, 9, 16)
    for arguments, words in [
        ((q, q[:, :, :3], q), "equal batch"),
        ((q, q.double(), q), "one dtype"),
        ((q[0], q, q), "shape"),
    ]:
        with pytest.raises(FewerError, match=words):
            ops.attention(*arguments)
    with pytest.raises(FewerError, match="int8"):
        ops.attention(q, q, q, precision="int8")


@pytest.mark.parametrize("width", [1, 7, 64, 387])
def test_layer_norm(each_isa, width):
    x, residual = torch.randn(3, 5, width) * 3 + 1, torch.randn(3, 5, width)
    weight, bias = torch.randn(width), torch.randn(width)
    expected = F.layer_norm((x + residual).double(), (width,), weight.double(), bias.double(), 1e-5)
    y, _, total = rows.layer_norm(x, weight, bias, 1e-5, residual=residual)
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(total, x + residual)
    y, _, _ = rows.layer_norm(x, weight, bias, 1e-5, residual=residual, out="bf16")
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=2.0**-8)
    y, scale, _ = rows.layer_norm(x, weight, bias, 1e-5, residual=residual, out="int8")
    error = (y.double() * scale[..., None] - expected).abs()
    assert bool((error <= 0.501 * expected.abs().amax(-1, keepdim=True) / 127 + 1e-5).all())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scale", [True, False])
def test_block(each_isa, precision, scale):
    torch.manual_seed(0)
    block = Block(scale=scale).eval()
    generator = torch.Generator().manual_seed(1)
    masks = {}
    for path in PATHS.values():
        linear = block.get_submodule(path)
        masks[path] = block_mask(linear.out_features, linear.in_features, 16, 16, 0.4, generator)
        linear.weight.mul_(masks[path])
    native_block = NativeBlock.from_block(block, masks, precision)
    block = block.float()
    for batch, tokens, threads in [(1, 1, 1), (1, 50, 1), (2, 33, 2), (1, 50, 2), (3, 7, 4), (1, 9, 4), (5, 20, 2)]:
        torch.set_num_threads(threads)
        x = torch.randn(batch, tokens, 64, generator=generator)
        expected = block(x)
        error = (native_block(x) - expected).norm() / (expected - x).norm()
        assert float(error) < BLOCK_ERROR[precision], (batch, tokens, threads)


def test_each_layer_of_a_block_may_have_its_own_precision(each_isa):
    torch.manual_seed(0)
    block = Block().eval()
    x = torch.randn(2, 19, 64)
    expected = block(x)
    precisions = {"attn.qkv": "bf16", "mlp.fc1": "int8"}  # the others stay fp32
    mixed = NativeBlock.from_block(block, precision=precisions)
    assert [layer.precision for layer in mixed._linears()] == ["bf16", "fp32", "int8", "fp32"]
    error = float((mixed(x) - expected).norm() / (expected - x).norm())
    coarse = NativeBlock.from_block(block, precision="int8")
    assert 0 < error < BLOCK_ERROR["int8"]
    assert error < float((coarse(x) - expected).norm() / (expected - x).norm())


def test_block_compiles_and_exports(lib):
    block = Block().eval()
    native_block = NativeBlock.from_block(block, precision="int8")
    x = torch.randn(2, 9, 64)
    expected = native_block(x)
    torch.testing.assert_close(torch.compile(native_block, fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.export.export(native_block, (x,)).module()(x), expected)
    torch.testing.assert_close(copy.deepcopy(native_block)(x), expected)


def test_other_structures_are_refused_with_a_reason(lib):
    def changed(change) -> nn.Module:
        block = Block().eval()
        change(block)
        return block

    cases = {
        "q_norm": lambda b: setattr(b.attn, "q_norm", nn.LayerNorm(16)),
        "no norm1": lambda b: delattr(b, "norm1"),
        "three times": lambda b: setattr(b.attn, "qkv", nn.Linear(64, 100)),
        "mlp.act": lambda b: setattr(b.mlp, "act", nn.Tanh()),
        "no gamma": lambda b: setattr(b, "ls1", nn.Linear(64, 64)),
        "extra": lambda b: setattr(b, "extra", nn.Linear(64, 64)),
        "not an affine": lambda b: setattr(b, "norm2", nn.LayerNorm(64, elementwise_affine=False)),
    }
    for words, change in cases.items():
        assert words in (why_not_a_block(changed(change)) or "")
        with pytest.raises(FewerError, match="not a block"):
            NativeBlock.from_block(changed(change))


def test_same_structure_with_other_mathematics_is_noticed(lib):
    class PostNorm(Block):
        def forward(self, x):
            return self.norm1(x + self.attn(x)) + self.mlp(self.norm2(x))

    block = PostNorm().eval()
    assert why_not_a_block(block) is None
    assert disagreement(block, NativeBlock.from_block(block), 64) > 0.1


def test_bad_block_input(lib):
    native_block = NativeBlock.from_block(Block().eval())
    for x in (torch.zeros(2, 64), torch.zeros(2, 3, 65), torch.zeros(2, 3, 64, dtype=torch.bfloat16)):
        with pytest.raises(FewerError, match="native block needs"):
            native_block(x)
