"""The native product against the masked dense product in float64, on every instruction set."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.kernels import ops
from fewer.kernels.format import pack
from fewer.kernels.linear import BlockSparseLinear

from .conftest import PRECISIONS, block_mask, error_bound, masked_product


def fuzzed_cases(count: int, most_work: float = 6e6) -> list[tuple[int, int, int, int, float]]:
    """(tokens, in, out, width, sparsity), each dimension log-uniform in 1..4097."""
    draw = random.Random(7)
    cases = [
        (1, 1, 1, 1, 0.0),
        (1, 4097, 17, 4, 0.5),
        (4097, 3, 19, 4, 0.5),
        (3, 5, 4097, 16, 0.9),
        (9, 1024, 40, 16, 0.5),
    ]
    while len(cases) < count:
        tokens, inputs, outputs = (int(math.exp(draw.uniform(0, math.log(4097.99)))) for _ in range(3))
        if tokens * inputs * outputs <= most_work:
            cases.append((tokens, inputs, outputs, draw.choice([4, 8, 16, 64]), draw.choice([0.0, 0.5, 0.9, 1.0])))
    return cases


def check_product(tokens, inputs, outputs, width, sparsity, precision, threads, x=None):
    generator = torch.Generator().manual_seed(tokens * 31 + inputs * 7 + outputs)
    weight = torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    mask = block_mask(outputs, inputs, 16, width, sparsity, generator)
    x = torch.randn(tokens, inputs, generator=generator) if x is None else x
    torch.set_num_threads(threads)
    y = ops.sparse_linear(x, pack(weight, mask, precision=precision, bias=bias))
    error = (y.double() - masked_product(x, weight, mask, bias)).abs()
    bound = error_bound(x, weight, mask, precision, bias)
    assert y.shape == (tokens, outputs)
    assert bool((error <= bound).all()), f"error {(error / bound).max():.2f} times the bound"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_fuzzed_shapes(each_isa, precision):
    for number, case in enumerate(fuzzed_cases(16)):
        check_product(*case, precision, threads=1 + number % 4)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_threads_agree(lib, precision, threads):
    # 1 token and few strips, few tokens and many strips, many tokens and one strip: every way of splitting the work
    for tokens, inputs, outputs in [(1, 2048, 2048), (5, 512, 1024), (1500, 256, 16), (197, 384, 384)]:
        check_product(tokens, inputs, outputs, 16, 0.5, precision, threads)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_unbalanced_rows(lib, precision):
    generator = torch.Generator().manual_seed(5)
    weight, x = torch.randn(512, 256, generator=generator), torch.randn(64, 256, generator=generator)
    mask = torch.zeros(512, 256, dtype=torch.bool)
    mask[:32] = True  # all work in two strips; the others are empty
    mask[500:, 3] = True
    torch.set_num_threads(2)
    y = ops.sparse_linear(x, pack(weight, mask, precision=precision))
    assert bool(((y.double() - masked_product(x, weight, mask)).abs() <= error_bound(x, weight, mask, precision)).all())
    assert bool((y[:, 32:500] == 0).all())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_strided_input(each_isa, precision):
    generator = torch.Generator().manual_seed(2)
    wide = torch.randn(40, 200, generator=generator)
    check_product(20, 96, 40, 16, 0.5, precision, 1, x=wide[::2, 8:104])
    check_product(40, 96, 40, 16, 0.5, precision, 1, x=torch.randn(96, 40, generator=generator).t())
    check_product(40, 96, 40, 16, 0.5, precision, 1, x=torch.randn(96, generator=generator).expand(40, 96))
    check_product(6, 1024, 24, 16, 0.5, precision, 2, x=torch.randn(6, 2048, generator=generator)[:, 512:1536])


@pytest.mark.parametrize("activation", [None, "gelu", "gelu_tanh", "relu", "relu6", "silu"])
@pytest.mark.parametrize("outputs", [48, 37])
def test_epilogue(each_isa, activation, outputs):
    generator = torch.Generator().manual_seed(4)
    linear = nn.Linear(64, outputs)
    x = 3 * torch.randn(21, 64, generator=generator)
    residual = torch.randn(21, outputs, generator=generator)
    functions = {None: lambda t: t, "gelu_tanh": lambda t: nn.functional.gelu(t, approximate="tanh")}
    function = functions.get(activation) or getattr(nn.functional, activation)
    layer = BlockSparseLinear.from_dense(linear, activation=activation)
    expected = function(nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())) + residual
    torch.testing.assert_close(layer(x, residual).double(), expected, atol=5e-6, rtol=2e-6)


def test_bf16_input_and_output(each_isa):
    linear, x = nn.Linear(100, 52), torch.randn(7, 100).bfloat16()
    for precision in PRECISIONS:
        y = BlockSparseLinear.from_dense(linear, precision=precision)(x)
        assert y.dtype == torch.bfloat16
        mask = torch.ones(52, 100, dtype=torch.bool)
        expected = masked_product(x.float(), linear.weight, mask, linear.bias)
        bound = error_bound(x.float(), linear.weight, mask, precision, linear.bias) + 2.0**-8 * expected.abs()
        assert bool(((y.double() - expected).abs() <= bound).all())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_pass_through(each_isa, precision, bad):
    weight = torch.rand(32, 40) + 0.5
    mask = torch.ones(32, 40, dtype=torch.bool)
    mask[16:, 32:] = False  # the second strip does not look at the last inputs
    x = torch.rand(9, 40)
    x[4, 37] = bad
    y = ops.sparse_linear(x, pack(weight, mask, precision=precision, width=4))
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert bool(torch.isfinite(y[others]).all())
    if precision == "int8":  # the token has no scale: all of it is NaN
        assert bool(y[4].isnan().all())
    else:
        assert torch.equal(y[4, :16].nan_to_num(7, 8, 9), torch.full((16,), bad).nan_to_num(7, 8, 9))
        assert bool(torch.isfinite(y[4, 16:]).all())


def test_int8_is_the_same_on_every_instruction_set_with_fma(lib):
    from fewer.kernels import native

    packed = pack(torch.randn(64, 300), torch.rand(64, 300) > 0.3, precision="int8")
    x = torch.randn(33, 300)
    results = []
    for name, usable in lib.variants().items():
        if usable and name != "portable":  # without FMA a value on the edge may round to the other integer
            with native.isa(name):
                results.append(ops.sparse_linear(x, packed))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_compile_and_export(lib, precision):
    layer = nn.Sequential(BlockSparseLinear.from_dense(nn.Linear(40, 24), precision=precision), nn.ReLU())
    x = torch.randn(2, 5, 40)
    expected = layer(x)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), expected)
    tokens = torch.export.Dim("tokens", min=2, max=64)
    program = torch.export.export(layer, (x,), dynamic_shapes={"input": {1: tokens}})
    torch.testing.assert_close(program.module()(x), expected)
    torch.testing.assert_close(program.module()(x[:, :3]), expected[:, :3])


def test_operator_passes_torch_checks(lib):
    layer = BlockSparseLinear.from_dense(nn.Linear(40, 24))
    weight = layer.tensors()
    with torch.inference_mode(False):
        tensors = [t.clone() for t in weight]
        torch.library.opcheck(
            torch.ops.fewer.sparse_linear.default, (torch.randn(3, 40), tensors, 24, 40, layer.units, None, 1)
        )


@pytest.mark.parametrize("backend", ["native", "gather", "masked"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_backends_agree(lib, backend, precision):
    generator = torch.Generator().manual_seed(9)
    linear = nn.Linear(130, 70)
    mask = block_mask(70, 130, 16, 16, 0.6, generator)
    layer = BlockSparseLinear.from_dense(linear, mask, precision, "relu", backend=backend)
    x, residual = torch.randn(2, 5, 130, generator=generator), torch.randn(2, 5, 70, generator=generator)
    dense = layer.dense()
    expected = torch.relu(x.double() @ dense.double().T + linear.bias.double()) + residual
    bound = error_bound(x, dense, mask, precision, linear.bias)
    assert bool(((layer(x, residual).double() - expected).abs() <= bound + 1e-6).all())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_state(lib, precision):
    linear = nn.Linear(64, 48)
    sparse = torch.rand(48, 64) > 0.5
    layer = BlockSparseLinear.from_dense(linear, sparse, precision, "gelu", width=4)
    x = torch.randn(3, 64)
    again = BlockSparseLinear.from_state(*layer.export_state())
    assert torch.equal(again(x), layer(x))
    # a state dict of another mask has other sizes; loading follows it
    other = BlockSparseLinear.from_dense(nn.Linear(64, 48), None, precision, "gelu", width=4)
    other(x)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    broken = {**layer.state_dict(), "kidx": layer.kidx + 1000}
    with pytest.raises(FewerError, match="corrupted"):
        other.load_state_dict(broken)


def test_bad_input(lib):
    layer = BlockSparseLinear.from_dense(nn.Linear(8, 4))
    for x, words in [
        (torch.zeros(2, 8, dtype=torch.float64), "float64"),
        (torch.zeros(2, 7), "last dimension must be 8"),
        (torch.zeros(2, 8, dtype=torch.int8), "int8"),
        (torch.zeros(()), "last dimension"),
    ]:
        with pytest.raises(FewerError, match=words):
            layer(x)
    with pytest.raises(FewerError, match="residual"):
        layer(torch.zeros(2, 8), torch.zeros(2, 5))
    with pytest.raises(FewerError, match="unknown activation"):
        BlockSparseLinear.from_dense(nn.Linear(8, 4), activation="tanh")
    with pytest.raises(FewerError, match="unknown backend"):
        BlockSparseLinear.from_dense(nn.Linear(8, 4), backend="cuda")
    assert layer(torch.zeros(0, 8)).shape == (0, 4)
    with torch.inference_mode(False), pytest.raises(FewerError, match="no gradient"):
        layer(torch.zeros(2, 8, requires_grad=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_short_gelu_of_bf16_results(each_isa, precision):
    x = torch.linspace(-12, 12, 16 * 40).reshape(40, 16).bfloat16()
    layer = BlockSparseLinear(pack(torch.eye(16), precision=precision), "gelu")
    expected = nn.functional.gelu(x.double())
    assert bool(((layer(x).double() - expected).abs() <= 2.5e-4 + 2.0**-8 * expected.abs()).all())


def int8_weight(values, width, mask):
    """A packed weight of given integers and scale 1, which are stored where the mask is True."""
    packed = pack(mask.float(), mask, precision="int8", width=width)
    tiles = torch.nn.functional.pad(values, (0, -values.shape[1] % width, 0, -values.shape[0] % 16))
    tiles = tiles.reshape(tiles.shape[0] // 16, 16, -1, width).permute(0, 2, 1, 3)
    kept = torch.nn.functional.pad(mask, (0, -mask.shape[1] % width, 0, -mask.shape[0] % 16))
    kept = kept.reshape(tiles.shape[0], 16, -1, width).any(3).any(1)
    stored = tiles[kept].reshape(-1, 16, packed.units, 4).permute(0, 2, 1, 3).to(torch.int8).contiguous()
    return replace(packed, vals=stored, scale=torch.ones_like(packed.scale))


# Sums of bytes that just fit into 16 bits, and that do not.
EDGES = {
    "narrow": ([64, 64, -64, -64], True),
    "one large": ([127, 1, -128, 0], True),
    "mixed signs": ([127, -127, -128, 127], True),
    "wide": ([64, 65, 1, 1], False),
    "wide below": ([1, 1, -127, -127], False),
}


@pytest.mark.parametrize("case", EDGES)
def test_sums_of_bytes_never_saturate(each_isa, case):
    unit, narrow = EDGES[case]
    values = torch.tensor(unit).repeat(20, 12)  # 20 outputs, 48 inputs
    packed = int8_weight(values, 8, torch.ones_like(values, dtype=torch.bool))
    assert ops.narrow_sums(packed).item() is narrow
    x = torch.tensor([127.0, -127.0]).repeat_interleave(24)[None] * torch.tensor([[1.0], [-1.0], [0.0]])
    x = torch.cat([x, torch.full((1, 48), 127.0), torch.full((1, 48), -127.0), torch.tensor([127.0, 0]).repeat(1, 24)])
    y = ops.linear_direct(ops.NativeWeight.of(packed), x, None, 0)
    assert torch.equal(y, x @ values.T.float())


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("top", [64, 127])
@pytest.mark.parametrize("inputs", [16, 48, 64, 112])  # bytes are packed 32 at a time, and 16 that are left
def test_sums_of_bytes_are_exact(each_isa, width, top, inputs):
    torch.manual_seed(0)
    values = torch.randint(-top, top + 1, (48, inputs)).float()
    mask = torch.rand(3, inputs // width).lt(0.7).repeat_interleave(16, 0).repeat_interleave(width, 1)
    values *= mask
    packed = int8_weight(values, width, mask)
    assert ops.narrow_sums(packed).item() is (top == 64)
    x = torch.randint(-127, 128, (37, inputs)).float()
    x[range(37), [7 * row % inputs for row in range(37)]] = torch.tensor([127.0, -127.0]).repeat(19)[:37]
    y = ops.linear_direct(ops.NativeWeight.of(packed), x, None, 0)
    assert torch.equal(y, x @ values.T)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activation", [None, "gelu", "relu6"])
def test_high_tiles_and_pairs_of_strips_give_the_same_bits(lib, precision, activation):
    if not lib.variants().get("avx512_bf16"):
        pytest.skip("this processor or this build lacks avx512_bf16")
    generator = torch.Generator().manual_seed(0)
    before = lib.wide_tiles
    torch.set_num_threads(1)
    try:
        # strips alike in all, in some and in no pair; whole and ragged outputs; a last tile of every height
        for outputs, sparsity in ((64, 0.0), (72, 0.0), (96, 0.5), (96, 1.0)):
            weight, bias = torch.randn(outputs, 96, generator=generator), torch.randn(outputs, generator=generator)
            mask = block_mask(outputs, 96, 16, 16, sparsity, generator)
            mask[16:32] = mask[:16]
            packed = pack(weight, mask, precision=precision, bias=bias)
            for tokens in range(1, 40):
                x = torch.randn(tokens, 96, generator=generator)
                found = []
                for wide in (False, True):
                    lib.wide_tiles = wide
                    found.append(ops.sparse_linear(x, packed, activation=activation))
                assert torch.equal(*found)
    finally:
        lib.wide_tiles = before
