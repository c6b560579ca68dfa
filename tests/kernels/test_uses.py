"""Packed modules in the hands of torch's own tools: traced, compiled, exported, copied, sent to other threads."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.kernels import native, ops
from fewer.kernels.dense import DenseBF16
from fewer.kernels.linear import BlockSparseLinear
from tests.kernels.test_safety import NAMES, _make, _run

pytestmark = pytest.mark.skipif(not native.available(), reason="the native library is not built")


def negated(x: Tensor) -> Tensor:
    """The same numbers, which lie in memory with the other sign."""
    return torch.complex(torch.zeros_like(x), -x).conj().imag


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_runs_the_kernels_on_what_it_is_given(name):
    module, x = _make(name)
    with torch.no_grad():
        traced = torch.jit.trace(module, torch.zeros_like(x), check_trace=False)
        assert torch.equal(traced(x), module(x))


@pytest.mark.parametrize("name", NAMES)
def test_compiled_exported_and_copied_modules_compute_the_same(name):
    module, x = _make(name)
    expected = _run(module, x)
    with torch.no_grad():
        assert torch.equal(torch.compile(module, backend="aot_eager")(x), expected)
        assert torch.equal(torch.export.export(module, (x,)).module()(x), expected)
    torch._dynamo.reset()
    for other in (copy.copy(module), copy.deepcopy(copy.deepcopy(module)), pickle.loads(pickle.dumps(module))):
        assert torch.equal(_run(other, x), expected)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(y, expected) for y in pool.map(lambda _: _run(module, x), range(8)))


@pytest.mark.parametrize("name", NAMES)
def test_numbers_that_lie_elsewhere_than_they_seem(name):
    module, x = _make(name)
    expected = _run(module, x)
    odd = negated(x)
    assert odd.is_neg() and torch.equal(odd, x)
    with pytest.raises(FewerError, match="to be negated"):
        _run(module, odd)
    with pytest.raises((FewerError, RuntimeError)):
        _run(module, x.to_sparse())
    shifted = torch.cat([x.flatten()[:1], x.flatten()])[1:].view_as(x)
    assert torch.equal(_run(module, shifted), expected)
    assert torch.equal(_run(module, x.transpose(0, -1).contiguous().transpose(0, -1)), expected)


def test_attention_and_residuals_are_looked_at_alike():
    q = torch.randn(1, 2, 5, 8)
    with pytest.raises(FewerError, match="to be negated"):
        ops.attention(q, q, negated(q))
    module, x = _make("linear fp32")
    with pytest.raises(FewerError, match="to be negated"):
        module(x, negated(torch.ones(5, 33)))


@pytest.mark.parametrize("backend", ["gather", "masked"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_layers_in_plain_torch_take_what_the_native_ones_take(backend, precision):
    layer = BlockSparseLinear.from_dense(nn.Linear(48, 33), None, precision, backend=backend)
    x = torch.randn(5, 48)
    for wrong in (x.int(), x > 0, x.long()):
        with pytest.raises(FewerError, match="has dtype"):
            layer(wrong)
    with torch.no_grad():
        assert torch.equal(layer(negated(x)), layer(x))
        assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    if backend == "gather":
        with torch.inference_mode(False), torch.enable_grad(), pytest.raises(FewerError, match="no gradient"):
            layer(torch.randn(5, 48, requires_grad=True))
    for cast in (layer.half, layer.double):
        with pytest.raises(FewerError, match="packed"):
            cast()


def test_a_layer_in_bf16_can_be_cast():
    layer, x = DenseBF16(nn.Linear(8, 4)), torch.randn(3, 8)
    expected = layer(x)
    for dtype in (torch.float32, torch.float64, torch.float16):
        other = copy.deepcopy(layer).to(dtype)
        assert other(x).dtype == torch.float32 and torch.allclose(other(x), expected, atol=0.05)
    with pytest.raises(FewerError, match="has dtype"):
        layer(x.int())
