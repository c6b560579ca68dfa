"""Whatever is done to a packed module, it computes what it was packed for or says that it cannot."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.kernels import native, ops, rows
from fewer.kernels.conv import BlockSparseConv2d, NativeDepthwise
from fewer.kernels.linear import BlockSparseLinear
from fewer.kernels.stages import NativeChain, Stage, Unit
from fewer.kernels.transformer import NativeBlock
from fewer.models.vit import Block

pytestmark = pytest.mark.skipif(not native.available(), reason="the native library is not built")


def _linear(precision):
    return BlockSparseLinear.from_dense(nn.Linear(48, 33), None, precision), torch.randn(5, 48)


def _make(name):
    torch.manual_seed(0)
    if name.startswith("linear"):
        return _linear(name.split()[1])
    if name == "conv":
        return BlockSparseConv2d.from_dense(nn.Conv2d(8, 20, 3, padding=1)), torch.randn(2, 8, 9, 9)
    if name == "pixel":
        return BlockSparseConv2d.from_dense(nn.Conv2d(8, 20, 1), precision="int8"), torch.randn(2, 8, 9, 9)
    if name == "depthwise":
        return NativeDepthwise(nn.Conv2d(8, 8, 3, groups=8)), torch.randn(2, 8, 9, 9)
    if name == "chain":
        convs = nn.Conv2d(8, 32, 1), nn.Conv2d(32, 32, 3, groups=32, padding=1), nn.Conv2d(32, 16, 1)
        units = [Unit(str(i), conv, "relu") for i, conv in enumerate(convs)]
        return NativeChain([Stage(*units)]), torch.randn(2, 8, 9, 9)
    return NativeBlock.from_block(Block(32, 2, 4.0, None, 1e-6).eval(), precision="bf16"), torch.randn(2, 7, 32)


NAMES = ["linear fp32", "linear bf16", "linear int8", "conv", "pixel", "depthwise", "chain", "block"]

CHANGES = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "double": lambda m: m.double(),
    "float": lambda m: m.float(),
    "meta": lambda m: m.to("meta"),
    "complex": lambda m: m.to(torch.complex64),
    "to_empty": lambda m: m.to_empty(device="cpu"),
    "cpu": lambda m: m.cpu(),
    "layout": lambda m: m.to(memory_format=torch.channels_last),
    "shared": lambda m: m.share_memory(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "train": lambda m: m.train().eval(),
    "saved": lambda m: m.load_state_dict(m.state_dict()) and m,
    "assigned": lambda m: m.load_state_dict({k: v.clone() for k, v in m.state_dict().items()}, assign=True) and m,
    "zeros added": lambda m: [b.add_(0) for b in m.buffers() if b.is_floating_point()] and m,
}
REFUSED = {"half", "bfloat16", "double", "meta", "complex", "to_empty"}


@torch.inference_mode()
def _run(module, x):
    return module(x)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a model"])
def test_casts_are_refused_or_change_nothing(name, inside):
    for what, change in CHANGES.items():
        module, x = _make(name)
        whole = nn.Sequential(module) if inside else module
        expected = _run(whole, x)
        if what in REFUSED:
            with pytest.raises(FewerError, match=r"packed|CPU"):
                change(whole)
            assert torch.equal(_run(whole, x), expected), what
        else:
            assert torch.equal(_run(change(whole), x), expected), what


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_another_layer_leaves_this_one_as_it_was(name):
    module, x = _make(name)
    expected = _run(module, x)
    other = BlockSparseLinear.from_dense(nn.Linear(64, 16), None, "int8").state_dict()
    for assign in (False, True):
        for prefix in {"", *(f"{n}." for n, _ in module.named_children())}:
            with pytest.raises((FewerError, RuntimeError)):
                module.load_state_dict({prefix + k: v for k, v in other.items()}, assign=assign)
    assert torch.equal(_run(module, x), expected)


@torch.inference_mode(False)  # tensors of that mode do not count their changes
def test_numbers_that_were_changed_in_place_are_checked_before_they_are_used():
    for name, value in (("kidx", 10**6), ("kidx", -1), ("rowptr", 10**6)):
        module, x = _linear("fp32")
        _run(module, x)
        getattr(module, name).fill_(value)
        with pytest.raises(FewerError, match="corrupted"):
            _run(module, x)
    module, x = _linear("fp32")
    module.vals = module.vals[:-1]
    with pytest.raises(FewerError):
        _run(module, x)


def test_operators_check_what_they_are_given():
    layer, x = _linear("fp32")
    good = layer.tensors()
    call = torch.ops.fewer.sparse_linear
    assert torch.equal(call(x, good, 33, 48, layer.units, None, 0), _run(layer, x))
    bad = [
        (good, 330, 48, layer.units), (good, 33, 480, layer.units), (good, 33, 48, layer.units + 1),
        (good[:-1], 33, 48, layer.units), ([t.double() for t in good], 33, 48, layer.units),
        ([good[0] + 10**6, *good[1:]], 33, 48, layer.units),
        ([*good[:3], good[3][:-1], *good[4:]], 33, 48, layer.units),
        (good, -1, 48, layer.units), (good, 33, 48, 0),
    ]  # fmt: skip
    for weight, out, inputs, units in bad:
        with pytest.raises(FewerError):
            call(x, weight, out, inputs, units, None, 0)
    for wrong in (x.double(), x[:, :47], x.to("meta")):
        with pytest.raises((FewerError, NotImplementedError, RuntimeError)):
            ops.linear_direct(layer.native_weight(), wrong, None, 0)
    with pytest.raises(FewerError, match="activation"):
        ops.linear_direct(layer.native_weight(), x, None, 99)


def test_attention_without_keys_or_queries_is_zero():
    junk = [torch.full((1, 2, 9, 64), 7e19) for _ in range(20)]
    del junk
    q, k = torch.randn(1, 2, 9, 64), torch.zeros(1, 2, 0, 64)
    assert not ops.attention(q, k, k).any()
    assert ops.attention(k, q, q).shape == (1, 2, 0, 64)
    for bad in (torch.randn(1, 2, 9, 63), torch.randn(1, 3, 9, 64), q.double()):
        with pytest.raises(FewerError):
            ops.attention(q, bad, bad)
    for scale in (float("nan"), float("inf"), -1.0):
        with pytest.raises(FewerError):
            ops.attention(q, q, q, scale=scale)


def test_merges_and_norms_check_their_sizes():
    x, sizes, origin = torch.randn(1, 9, 4), torch.ones(1, 9), torch.arange(9)[None]
    for count, protected in ((5, 0), (-1, 0), (1, 10), (1, -1)):
        with pytest.raises(FewerError):
            rows.merge_direct(x, sizes, origin, count, protected)
    with pytest.raises(FewerError):
        rows.merge_direct(x, sizes, origin + 100, 1, 0)
    ones = torch.ones(4)
    for weight, bias in ((ones[:3], ones), (ones, ones.double()), (ones.to("meta"), ones)):
        with pytest.raises(FewerError):
            rows.layer_norm(x, weight, bias, 1e-6)


def test_compiled_and_saved_layers_compute_the_same():
    layer, x = _linear("int8")
    expected = _run(layer, x)
    compiled = torch.compile(layer, backend="eager")
    assert torch.equal(_run(compiled, x), expected)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = BlockSparseLinear.from_dense(nn.Linear(48, 33), None, "int8")
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(_run(other, x), expected)
