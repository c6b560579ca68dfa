"""The GPU kernel against masked dense in float64, in Triton's interpreter.

Triton decides on interpretation when it is imported, and another test may already have imported it; so the tests of
the kernel run in a process of their own, started by `test_kernel_in_the_interpreter`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.kernels.triton_linear import BLOCK_SIZES, TritonLinear, pack_blocks, triton_linear

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="run by test_kernel_in_the_interpreter")
BOUND = {torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 8e-4}


def make(outputs, inputs, size, density, dtype=torch.float32, seed=0):
    """A weight, an elementwise mask of whole and partly filled blocks, and a bias."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator).to(dtype)
    strips, tiles = -(-outputs // size), -(-inputs // size)
    alive = torch.rand(strips, tiles, generator=generator) < density
    mask = alive.repeat_interleave(size, 0).repeat_interleave(size, 1)[:outputs, :inputs]
    holes = torch.rand(outputs, inputs, generator=generator) < 0.1
    return weight, mask & ~holes, torch.randn(outputs, generator=generator).to(dtype)


def oracle(x, weight, mask, bias=None, activation=None):
    y = x.double() @ (weight.double() * mask).T
    if bias is not None:
        y = y + bias.double()
    return torch.nn.functional.gelu(y) if activation == "gelu" else y


def error(y, expected):
    return ((y.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()


@pytest.mark.skipif(INTERPRETED, reason="already inside")
def test_kernel_in_the_interpreter():
    pytest.importorskip("triton", reason="needs the [gpu] extra")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = [line for line in done.stdout.splitlines() if " passed" in line]
    assert passed and "failed" not in passed[-1]


@interpreted
@pytest.mark.parametrize("dtype", list(BOUND), ids=str)
@pytest.mark.parametrize("size", BLOCK_SIZES)
@pytest.mark.parametrize("activation", [None, "gelu"])
def test_matches_masked_dense(dtype, size, activation):
    weight, mask, bias = make(3 * size, 4 * size, size, 0.5, dtype)
    x = torch.randn(70, 4 * size).to(dtype)
    y = triton_linear(x, pack_blocks(weight, mask, size), bias, activation)
    assert y.dtype == dtype and y.shape == (70, 3 * size)
    assert error(y, oracle(x, weight, mask, bias, activation)) < BOUND[dtype]


@interpreted
@pytest.mark.parametrize(
    ("tokens", "inputs", "outputs", "size"),
    [(1, 1, 1, 32), (1, 33, 65, 32), (63, 64, 31, 64), (65, 100, 130, 64), (129, 31, 97, 32), (197, 96, 48, 32)],
)
def test_ragged_shapes(tokens, inputs, outputs, size):
    weight, mask, bias = make(outputs, inputs, size, 0.7, seed=tokens)
    x = torch.randn(tokens, inputs)
    y = triton_linear(x, pack_blocks(weight, mask, size), bias)
    expected = oracle(x, weight, mask, bias)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


@interpreted
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_empty_and_full_masks(density):
    weight, _, bias = make(70, 90, 32, 0.5)
    mask = torch.full((70, 90), density)
    x = torch.randn(5, 90)
    y = triton_linear(x, pack_blocks(weight, mask, 32), bias)
    torch.testing.assert_close(y.double(), oracle(x, weight, mask, bias), rtol=1e-5, atol=1e-5)


@interpreted
def test_strided_and_batched_input():
    weight, mask, bias = make(40, 64, 32, 0.5)
    x = torch.randn(2, 128, 7).transpose(1, 2)[..., ::2]  # not contiguous in any dimension
    y = triton_linear(x, pack_blocks(weight, mask, 32), bias)
    assert y.shape == (2, 7, 40)
    torch.testing.assert_close(y.double(), oracle(x, weight, mask, bias), rtol=1e-5, atol=1e-5)


@interpreted
def test_no_tokens():
    weight, mask, _ = make(40, 64, 32, 0.5)
    assert triton_linear(torch.empty(0, 64), pack_blocks(weight, mask, 32)).shape == (0, 40)


@interpreted
def test_nan_stays_in_its_token_and_reaches_only_strips_that_read_it():
    weight, _, _ = make(64, 64, 32, 1.0)
    mask = torch.ones(64, 64)
    mask[:32, :32] = 0
    x = torch.randn(3, 64)
    x[1, 0] = torch.nan
    y = triton_linear(x, pack_blocks(weight, mask, 32))
    assert y[1, 32:].isnan().all()
    assert not y[[0, 2]].isnan().any() and not y[1, :32].isnan().any()


@interpreted
def test_the_custom_op_is_registered_as_torch_expects():
    weight, mask, bias = make(40, 64, 32, 0.5)
    blocks = pack_blocks(weight, mask, 32)
    arguments = (torch.randn(3, 64), blocks.values, blocks.columns, blocks.starts, bias, 40, True)
    torch.library.opcheck(
        torch.ops.fewer.triton_block_sparse_linear.default,
        arguments,
        test_utils=("test_schema", "test_faketensor"),
    )


@interpreted
def test_module_exports_and_reloads_its_state():
    linear = torch.nn.Linear(64, 96)
    mask = torch.zeros(96, 64)
    mask[32:64, 32:] = 1
    module = TritonLinear.from_dense(linear, mask, size=32, activation="gelu")
    assert set(module.state_dict()) == {"values", "columns", "starts", "bias"}
    assert module.blocks.density == pytest.approx(1 / 6)
    x = torch.randn(2, 5, 64)
    expected = oracle(x, linear.weight, mask, linear.bias, "gelu")
    assert error(module(x), expected) < 1e-6
    program = torch.export.export(module, (x,))
    assert error(program.module()(x), expected) < 1e-6


@pytest.mark.parametrize("size", BLOCK_SIZES)
def test_packing_is_exact(size):
    weight, mask, _ = make(100, 130, size, 0.5)
    blocks = pack_blocks(weight, mask, size)
    assert torch.equal(blocks.to_dense(), weight * mask)
    assert blocks.columns.dtype == blocks.starts.dtype == torch.int32


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize(("capability", "dtype"), [(80, "fp16"), (90, "bf16"), (90, "fp32")])
@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
def test_compiles_for_real_gpus_without_one(capability, dtype):
    """The kernel must reach machine code for A100 and H100, though nothing here can run it."""
    pytest.importorskip("triton", reason="needs the [gpu] extra")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from fewer.kernels.triton_linear import _kernel

    _, kernel, tuned = _kernel()
    assert tuned
    constants = {"BLOCK": 64, "HAS_BIAS": True, "GELU": True, "PRECISION": "ieee", "WIDEN": False, "BLOCK_M": 64}
    pointers = {"x": f"*{dtype}", "values": f"*{dtype}", "columns": "*i32", "starts": "*i32", "bias": f"*{dtype}"}
    signature = {name: "i32" for name in kernel.fn.arg_names} | pointers | {"y": f"*{dtype}"}
    signature |= {name: "constexpr" for name in constants}
    source = ASTSource(kernel.fn, signature, constexprs=constants)
    compiled = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4, "num_stages": 3})
    assert compiled.asm["cubin"]
    if dtype != "fp32":
        assert "mma" in compiled.asm["ptx"]  # tensor cores are used


def test_cpu_tensors_are_refused_outside_the_interpreter():
    if INTERPRETED:
        pytest.skip("the interpreter takes CPU tensors")
    pytest.importorskip("triton", reason="needs the [gpu] extra")
    weight, mask, _ = make(32, 32, 32, 1.0)
    with pytest.raises(FewerError, match="cuda"):
        triton_linear(torch.randn(1, 32), pack_blocks(weight, mask, 32))


def test_without_triton_the_error_names_the_extra(monkeypatch):
    from fewer.kernels import triton_linear as module

    module._kernel.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)
    weight, mask, _ = make(32, 32, 32, 1.0)
    with pytest.raises(FewerError, match=r"\[gpu\]"):
        triton_linear(torch.randn(1, 32), pack_blocks(weight, mask, 32))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w, m, b: pack_blocks(w, m, 48), "32 or 64, not 48"),
        (lambda w, m, b: pack_blocks(w.double(), m, 32), "fp16, bf16 or fp32"),
        (lambda w, m, b: pack_blocks(w, m[:3], 32), "must agree"),
        (lambda w, m, b: triton_linear(torch.ones(2, 31), pack_blocks(w, m, 32)), "31 features"),
        (lambda w, m, b: triton_linear(torch.ones(2, 32).half(), pack_blocks(w, m, 32)), "float16"),
        (lambda w, m, b: triton_linear(torch.ones(2, 32), pack_blocks(w, m, 32), b[:5]), "bias"),
        (lambda w, m, b: triton_linear(torch.ones(2, 32), pack_blocks(w, m, 32), b, "relu6"), "relu6"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    weight, mask, bias = make(64, 32, 32, 0.5)
    with pytest.raises(FewerError, match=words) as caught:
        call(weight, mask, bias)
    assert "\n" not in str(caught.value)
