"""``BlockSparseConv2d`` over a packed weight, and a dense depthwise convolution, both channels-last."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.kernels import guard, native, ops
from fewer.kernels.format import PackedWeight, best_width, pack, unit_of
from fewer.kernels.geometry import as_pair, check_image, output_size
from fewer.kernels.linear import TORCH_ACTIVATIONS, BlockSparseLinear

_GEOMETRY = ("kernel_size", "stride", "padding", "dilation")


def conv_direct(
    x: Tensor, weight: ops.NativeWeight, geometry: Sequence[int], padded: int, residual: Tensor | None, act: int
) -> Tensor:
    """Convolution by a packed weight over (tap, channel); ``geometry``: kernel, stride, padding, dilation, two each."""
    check_image(x, x.shape[1] if x.ndim == 4 else 0)
    batch, channels, height, width = x.shape
    kernel, stride, padding, dilation = (geometry[i : i + 2] for i in (0, 2, 4, 6))
    rows, columns = output_size((height, width), kernel, stride, padding, dilation)
    out, inputs = weight.shape
    guard.need(len(geometry) == 8 and min(kernel) > 0 and min(stride) > 0 and min(dilation) > 0, f"geometry {geometry}")
    guard.need(min(padding) >= 0 and min(rows, columns) > 0, f"an image of {height} x {width} is too small")
    guard.need(channels <= padded and inputs == kernel[0] * kernel[1] * padded, f"{channels} channels of {inputs}")
    guard.need(padded % weight.block == 0, f"{padded} channels in blocks of {weight.block}")
    guard.need(act in native.ACTIVATIONS.values(), f"there is no activation {act}")
    guard.sizes(*x.shape, *geometry)
    y = torch.empty((batch, rows, columns, out))
    added = None
    if residual is not None:
        if residual.shape != (batch, out, rows, columns) or residual.dtype != torch.float32:
            raise FewerError(f"the residual must be float32 {(batch, out, rows, columns)}; got {tuple(residual.shape)}")
        guard.plain(residual)
        added = residual.permute(0, 2, 3, 1).contiguous()
    arguments = native.ConvStruct(
        x.data_ptr(),
        *x.stride(),
        y.data_ptr(),
        None if added is None else added.data_ptr(),
        batch,
        channels,
        padded,
        height,
        width,
        *geometry,
        rows,
        columns,
        act,
        torch.get_num_threads(),
    )
    native.call(native.library().conv(weight.pointer, ctypes.byref(arguments)), "convolution")
    return y.permute(0, 3, 1, 2)


_CONV = (
    "(Tensor x, Tensor[] weight, int out, int units, int[] geometry, int padded, Tensor? residual, int act) -> Tensor"
)


@torch.library.custom_op("fewer::sparse_conv2d", mutates_args=(), device_types="cpu", schema=_CONV)
def _sparse_conv2d(x, weight, out, units, geometry, padded, residual, act):
    taps = geometry[0] * geometry[1]
    return conv_direct(x, ops.NativeWeight(weight, (out, taps * padded), units), geometry, padded, residual, act)


@_sparse_conv2d.register_fake
def _(x, weight, out, units, geometry, padded, residual, act):
    rows, columns = output_size(x.shape[2:], *(geometry[i : i + 2] for i in (0, 2, 4, 6)))
    return x.new_empty((x.shape[0], rows, columns, out)).permute(0, 3, 1, 2)


class BlockSparseConv2d(nn.Module):
    """A convolution that multiplies only with the stored blocks of its weight; channels-last output.

    A 1 x 1 convolution is a product over pixels, and one whose kernel equals its stride (a patch embedding) a product
    over patches; both take every precision. Others run over a padded image without im2col, in fp32 or bf16. Blocks are
    16 output channels high and lie along the input channels of one tap (for patches: along the flattened patch,
    channels last).

    Parameters
    ----------
    conv : nn.Conv2d
        Geometry; its weight is not read.
    packed : PackedWeight
        Weight [out, taps * padded channels].
    padded : int
        Channels of a tap, zero-padded to whole blocks.
    activation : str, optional
        Applied to the output.

    Examples
    --------
    >>> BlockSparseConv2d.from_dense(nn.Conv2d(8, 16, 1))(torch.zeros(1, 8, 4, 4)).shape  # doctest: +SKIP
    torch.Size([1, 16, 4, 4])
    """

    def __init__(self, conv: nn.Conv2d, packed: PackedWeight, padded: int, activation: str | None = None) -> None:
        super().__init__()
        native.library()
        self.geometry = [n for field in _GEOMETRY for n in as_pair(getattr(conv, field))]
        self.in_channels, self.out_channels, self.padded = conv.in_channels, conv.out_channels, padded
        self.form = _form(conv)
        self.linear = BlockSparseLinear(packed, activation, "native")

    @property
    def precision(self) -> str:
        """fp32, bf16 or int8."""
        return self.linear.precision

    def packed(self) -> PackedWeight:
        """The packed weight."""
        return self.linear.packed()

    @classmethod
    def from_dense(
        cls,
        conv: nn.Conv2d,
        mask: Tensor | None = None,
        precision: str = "fp32",
        activation: str | None = None,
        *,
        width: int | None = None,
    ) -> BlockSparseConv2d:
        """Pack a dense convolution and its mask (bool, of the shape of the weight).

        Raises
        ------
        FewerError
            For grouped or oddly padded convolutions, and for int8 with a kernel that is neither 1 x 1 nor a patch.

        Examples
        --------
        >>> BlockSparseConv2d.from_dense(nn.Conv2d(8, 16, 3), precision="bf16").precision  # doctest: +SKIP
        'bf16'
        """
        reason = why_not_a_conv(conv, precision)
        if reason:
            raise FewerError(f"this convolution cannot be packed: {reason}")
        weight = conv.weight.detach().float()
        if mask is None:
            mask = torch.ones_like(weight, dtype=torch.bool)
        assert mask is not None
        if mask.dtype != torch.bool or mask.shape != weight.shape:
            raise FewerError(f"the mask must be torch.bool {tuple(weight.shape)}; got {mask.dtype} {tuple(mask.shape)}")
        out, channels = weight.shape[:2]
        if _form(conv) == "patch":
            packed = pack(
                *(w.permute(0, 2, 3, 1).reshape(out, -1) for w in (weight, mask)),
                precision=precision,
                width=width,
                bias=conv.bias,
            )
            return cls(conv, packed, channels, activation)
        by_tap, kept = weight.permute(0, 2, 3, 1), mask.permute(0, 2, 3, 1)  # [out, rows, columns, channels]
        if width is None:
            width = best_width(_pad_channels(kept, 1).reshape(-1, channels), precision)
            while width > unit_of(precision) and -channels % width > channels // 8:
                width //= 2  # padding the channels would cost more than short blocks
        by_tap, kept = _pad_channels(by_tap, width), _pad_channels(kept, width)
        packed = pack(by_tap.reshape(out, -1), kept.reshape(out, -1), precision=precision, width=width, bias=conv.bias)
        return cls(conv, packed, by_tap.shape[3], activation)

    def dense(self) -> Tensor:
        """The dense weight [out, in, rows, columns]."""
        kernel = self.geometry[:2]
        weight = self.linear.dense()
        if self.form == "patch":
            return weight.reshape(self.out_channels, *kernel, self.in_channels).permute(0, 3, 1, 2)
        return weight.reshape(self.out_channels, *kernel, self.padded)[..., : self.in_channels].permute(0, 3, 1, 2)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x float32 [batch, in, rows, columns] -> [batch, out, rows, columns], channels-last in memory."""
        check_image(x, self.in_channels)
        linear = self.linear
        if self.form == "spatial":
            if ops.tracing(x):
                weight = linear.tensors()
                return torch.ops.fewer.sparse_conv2d(
                    x, weight, self.out_channels, linear.units, self.geometry, self.padded, residual, linear._act
                )
            return conv_direct(x, linear.native_weight(), self.geometry, self.padded, residual, linear._act)
        if self.form == "pixel":
            rows = x.permute(0, 2, 3, 1)
            if self.padded != self.in_channels:
                rows = F.pad(rows, (0, self.padded - self.in_channels))
        else:
            (batch, channels, height, width), (kh, kw) = x.shape, self.geometry[:2]
            x = x[:, :, : height // kh * kh, : width // kw * kw]
            rows = x.reshape(batch, channels, height // kh, kh, width // kw, kw).permute(0, 2, 4, 3, 5, 1).flatten(3)
        added = None if residual is None else residual.permute(0, 2, 3, 1)
        return linear(rows, added).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, form={self.form}"


def _pad_channels(by_tap: Tensor, width: int) -> Tensor:
    return F.pad(by_tap, (0, -by_tap.shape[3] % width))


def _form(conv: nn.Conv2d) -> str:
    """``pixel`` (1 x 1), ``patch`` (kernel equals stride) or ``spatial``."""
    kernel, stride, padding, dilation = (as_pair(getattr(conv, field)) for field in _GEOMETRY)
    if kernel == stride and padding == (0, 0) and dilation == (1, 1):
        return "pixel" if kernel == (1, 1) else "patch"
    return "spatial"


def why_not_a_conv(conv: nn.Module, precision: str) -> str | None:
    """Why a convolution cannot be packed at this precision; None when it can.

    Examples
    --------
    >>> why_not_a_conv(nn.Conv2d(8, 8, 3, groups=8), "fp32")
    'it has 8 groups'
    """
    if not isinstance(conv, nn.Conv2d):
        return f"it is a {type(conv).__name__}"
    if conv.groups != 1:
        return f"it has {conv.groups} groups"
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return f"its padding is {conv.padding if isinstance(conv.padding, str) else conv.padding_mode}"
    if precision == "int8" and _form(conv) == "spatial":
        return "int8 needs one scale per pixel, which only 1 x 1 and patch convolutions have"
    return None


# --- depthwise -----------------------------------------------------------------------------------------------------
def _depthwise_direct(x: Tensor, weight: Tensor, bias: Tensor, geometry: Sequence[int], act: int) -> Tensor:
    check_image(x, x.shape[1] if x.ndim == 4 else 0)
    batch, channels, height, width = x.shape
    guard.need(len(geometry) == 6 and min(geometry[:4]) > 0 and min(geometry[4:]) >= 0, f"geometry {geometry}")
    rows, columns = output_size((height, width), geometry[0:2], geometry[2:4], geometry[4:6], (1, 1))
    guard.need(min(rows, columns) > 0, f"an image of {height} x {width} is too small")
    guard.vector(weight, geometry[0] * geometry[1] * channels, "the depthwise filter")
    guard.vector(bias, channels, "the bias of the depthwise filter")
    guard.need(act in native.ACTIVATIONS.values(), f"there is no activation {act}")
    guard.sizes(*x.shape, *geometry)
    source = x.permute(0, 2, 3, 1).contiguous()
    y = torch.empty((batch, rows, columns, channels))
    arguments = native.DepthwiseStruct(
        source.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        y.data_ptr(),
        batch,
        channels,
        height,
        width,
        *geometry,
        rows,
        columns,
        act,
        torch.get_num_threads(),
    )
    native.call(native.library().depthwise(ctypes.byref(arguments)), "depthwise convolution")
    return y.permute(0, 3, 1, 2)


@torch.library.custom_op(
    "fewer::depthwise",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor weight, Tensor bias, int[] geometry, int act) -> Tensor",
)
def _depthwise(x, weight, bias, geometry, act):
    return _depthwise_direct(x, weight, bias, geometry, act)


@_depthwise.register_fake
def _(x, weight, bias, geometry, act):
    rows, columns = output_size(x.shape[2:], geometry[0:2], geometry[2:4], geometry[4:6], (1, 1))
    return x.new_empty((x.shape[0], rows, columns, x.shape[1])).permute(0, 3, 1, 2)


class NativeDepthwise(nn.Module):
    """A dense depthwise convolution in fp32, channels-last, with its activation fused.

    Pruning single weights of a depthwise filter saves no time, so it has no sparse form; this one only avoids changes
    of memory layout between packed 1 x 1 convolutions.

    Parameters
    ----------
    conv : nn.Conv2d
        With as many groups as input and output channels, and dilation 1.
    activation : str, optional
        Applied to the output.

    Raises
    ------
    FewerError
        For another kind of convolution.

    Examples
    --------
    >>> NativeDepthwise(nn.Conv2d(8, 8, 3, groups=8))(torch.zeros(1, 8, 5, 5)).shape  # doctest: +SKIP
    torch.Size([1, 8, 3, 3])
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, activation: str | None = None) -> None:
        super().__init__()
        native.library()
        if not is_depthwise(conv):
            raise FewerError("this is not a depthwise convolution with dilation 1 and zero padding")
        if activation not in TORCH_ACTIVATIONS:
            raise FewerError(f"unknown activation {activation!r}")
        self.geometry = [n for field in _GEOMETRY[:3] for n in as_pair(getattr(conv, field))]
        self.channels, self.activation, self._act = conv.in_channels, activation, native.ACTIVATIONS[activation]
        weight = conv.weight.detach().float()[:, 0].permute(1, 2, 0).contiguous()
        bias = torch.zeros(conv.in_channels) if conv.bias is None else conv.bias.detach().float().clone()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [batch, channels, rows, columns] -> [batch, channels, rows, columns], channels-last in memory."""
        check_image(x, self.channels)
        if ops.tracing(x):
            return torch.ops.fewer.depthwise(x, self.weight, self.bias, self.geometry, self._act)
        return _depthwise_direct(x, self.weight, self.bias, self.geometry, self._act)

    def _apply(self, fn: Any, recurse: bool = True) -> NativeDepthwise:
        """Casts and moves; see :func:`fewer.kernels.guard.keep_packed`."""
        guard.keep_packed(self, fn, type(self).__name__)
        return self

    def extra_repr(self) -> str:
        return f"{self.channels}, geometry={self.geometry}, activation={self.activation}"


def is_depthwise(conv: nn.Module) -> bool:
    """Whether a module is a depthwise convolution that :class:`NativeDepthwise` can run."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.groups == conv.in_channels == conv.out_channels
        and as_pair(conv.dilation) == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )
