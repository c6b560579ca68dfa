"""What the kernel tests share: the native library on every instruction set, and error bounds derived from rounding."""

from __future__ import annotations

import pytest
import torch

from fewer.kernels import native

PRECISIONS = ("fp32", "bf16", "int8")
VARIANTS = ("portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16")
LOW = "avx512_bf16 in low tiles"  # as on a processor whose L1 has fewer ways


@pytest.fixture(autouse=True)
def _inference():
    threads = torch.get_num_threads()
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def lib():
    if not native.available():
        pytest.skip("the native library is not built")
    return native.library()


@pytest.fixture(params=(*VARIANTS, LOW))
def each_isa(request, lib):
    name = request.param.split()[0]
    if not lib.variants().get(name):
        pytest.skip(f"this processor or this build lacks {name}")
    before = lib.wide_tiles
    lib.wide_tiles = request.param != LOW
    try:
        with native.isa(name):
            yield name
    finally:
        lib.wide_tiles = before


def block_mask(
    rows: int, cols: int, height: int, width: int, sparsity: float, generator: torch.Generator
) -> torch.Tensor:
    """A random mask [rows, cols] of whole blocks, cut off at the edges."""
    grid = torch.rand(-(-rows // height), -(-cols // width), generator=generator) >= sparsity
    return grid.repeat_interleave(height, 0).repeat_interleave(width, 1)[:rows, :cols].contiguous()


def masked_product(x, weight, mask, bias=None):
    """The oracle, in float64."""
    y = x.double() @ torch.where(mask, weight, 0.0).double().T
    return y if bias is None else y + bias.double()


def error_bound(x, weight, mask, precision, bias=None):
    """The largest error that rounding alone explains, per output, from the textbook bounds.

    fp32: (in + 4) roundings of 2^-24 on every product. bf16: both factors rounded to 8 bits (2^-8 each), beside
    that. int8: half a step of either factor; a step is the largest of a token / 127, and of a row of weights / 64.
    """
    x, weight = x.double().abs(), torch.where(mask, weight, 0.0).double().abs()
    magnitude = x @ weight.T + (0 if bias is None else bias.double().abs())
    bound = (x.shape[-1] + 4) * 2.0**-24 * magnitude + 1e-30
    if precision == "bf16":
        bound = bound + (2.0**-7 + 2.0**-16) * (x @ weight.T)
    if precision == "int8":
        step_x, step_w = x.amax(-1, keepdim=True) / 127, weight.amax(1) / 64
        kept = mask.double()
        half = 0.5 * (1 + 1e-5)
        bound = bound + half * (x @ kept.T) * step_w + half * step_x * weight.sum(1) + step_x * step_w * kept.sum(1) / 4
        bound = bound + 4 * 2.0**-24 * magnitude
    return bound
