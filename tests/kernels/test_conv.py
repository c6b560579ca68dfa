"""Packed and depthwise convolutions against float64 torch, on every instruction set."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewer.core.errors import FewerError
from fewer.kernels.conv import BlockSparseConv2d, NativeDepthwise
from fewer.patterns import Pattern, select_mask, to_weight

from .conftest import PRECISIONS

# (in, out, kernel, stride, padding, dilation, rows, columns)
CASES = [
    (16, 32, 3, 1, 1, 1, 9, 11),
    (3, 20, 3, 2, 1, 1, 17, 16),
    (24, 16, (1, 3), (2, 1), (0, 1), 1, 8, 8),
    (8, 17, 3, 1, 2, 2, 12, 7),
    (5, 16, 5, 3, 0, 1, 14, 15),
    (32, 48, 1, 1, 0, 1, 7, 7),
    (10, 16, 1, 2, 0, 1, 7, 7),
    (3, 40, 4, 4, 0, 1, 18, 16),
    (1, 1, 1, 1, 0, 1, 1, 1),
    (16, 16, 3, 1, 1, 1, 1, 1),
]
# Relative to the same convolution of magnitudes: fp32 sums of a few hundred products, bf16 both factors rounded,
# int8 half a step of the largest value of a pixel or filter on either side.
TOLERANCE = {"fp32": 2e-5, "bf16": 2.0**-7 + 2e-4}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_packed_convolution(each_isa, precision, case):
    inputs, outputs, kernel, stride, padding, dilation, rows, columns = case
    torch.manual_seed(0)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation)
    mask = torch.rand(-(-outputs // 16), *conv.weight.shape[1:]).repeat_interleave(16, 0)[:outputs] > 0.5
    if precision == "int8" and not (kernel == stride and padding == 0):
        with pytest.raises(FewerError, match="int8 needs"):
            BlockSparseConv2d.from_dense(conv, mask, "int8")
        return
    layer = BlockSparseConv2d.from_dense(conv, mask, precision, "relu")
    weight = (conv.weight * mask).double()
    x = torch.randn(2, inputs, rows, columns)
    geometry = (stride, padding, dilation)
    expected = F.relu(F.conv2d(x.double(), weight, conv.bias.double(), *geometry))
    magnitude = F.conv2d(x.double().abs(), weight.abs(), conv.bias.double().abs(), *geometry)
    residual = torch.randn_like(expected, dtype=torch.float32)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for image in (x, x.to(memory_format=torch.channels_last), torch.cat([x, x], 3)[..., :columns]):
            got = layer(image, residual)
            assert got.is_contiguous(memory_format=torch.channels_last)
            error = (got - (expected + residual)).abs()
            if precision == "int8":
                assert float(error.norm() / magnitude.norm()) < 0.02
            else:
                assert bool((error <= TOLERANCE[precision] * magnitude + 1e-6).all())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_dense_returns_the_weight(lib, precision):
    conv = nn.Conv2d(6, 20, 3)
    torch.testing.assert_close(
        BlockSparseConv2d.from_dense(conv, precision=precision).dense(), conv.weight, rtol=2.0**-8, atol=0
    )


@pytest.mark.parametrize("channels", [16, 13, 48])
@pytest.mark.parametrize("kernel,stride,padding", [(3, 1, 1), (3, 2, 1), (5, 2, 2), ((1, 3), 1, (0, 1)), (3, 1, 0)])
def test_depthwise(each_isa, channels, kernel, stride, padding):
    conv = nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels)
    x = torch.randn(2, channels, 11, 9)
    expected = F.relu6(F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), stride, padding, 1, channels))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for image in (x, x.to(memory_format=torch.channels_last)):
            torch.testing.assert_close(NativeDepthwise(conv, "relu6")(image).double(), expected, atol=1e-5, rtol=1e-5)


def test_compile_and_export(lib):
    net = nn.Sequential(
        BlockSparseConv2d.from_dense(nn.Conv2d(4, 16, 3, padding=1)),
        NativeDepthwise(nn.Conv2d(16, 16, 3, groups=16)),
        BlockSparseConv2d.from_dense(nn.Conv2d(16, 16, 1), precision="int8"),
    )
    x = torch.randn(1, 4, 8, 8)
    expected = net(x)
    torch.testing.assert_close(torch.compile(net, fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), expected)


def test_bad_input(lib):
    layer = BlockSparseConv2d.from_dense(nn.Conv2d(4, 16, 3))
    for x in (torch.zeros(4, 8, 8), torch.zeros(1, 5, 8, 8), torch.zeros(1, 4, 8, 8, dtype=torch.float64)):
        with pytest.raises(FewerError, match="native convolution needs"):
            layer(x)
    with pytest.raises(FewerError, match="2 groups"):
        BlockSparseConv2d.from_dense(nn.Conv2d(4, 16, 3, groups=2))
    with pytest.raises(FewerError, match="reflect"):
        BlockSparseConv2d.from_dense(nn.Conv2d(4, 16, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(FewerError, match="mask"):
        BlockSparseConv2d.from_dense(nn.Conv2d(4, 16, 3), torch.ones(16, 4, 3, 3))
    with pytest.raises(FewerError, match="not a depthwise"):
        NativeDepthwise(nn.Conv2d(4, 8, 3))


@pytest.mark.parametrize("conv", [nn.Conv2d(32, 32, 3), nn.Conv2d(16, 32, 4, stride=4)], ids=["spatial", "patch"])
def test_a_mask_of_the_block_pattern_is_skipped_block_by_block(lib, conv):
    """What ``fewer compress`` prunes in a k x k convolution is what the kernel does not multiply with."""
    score = torch.rand(32, conv.weight[0].numel())
    mask = to_weight(select_mask(score, Pattern.parse("block:16x8"), 0.5), conv.weight.shape)
    packed = BlockSparseConv2d.from_dense(conv, mask, "fp32", width=8).packed()
    assert packed.kidx.numel() * 16 * 8 == int(mask.sum()) == mask.numel() // 2
