"""Convolutional stages (inverted residuals and their parts) that follow each other, as one native call."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.kernels import guard, native, ops
from fewer.kernels.conv import is_depthwise
from fewer.kernels.format import UNIT, best_width, pack
from fewer.kernels.geometry import as_pair, check_image, output_size
from fewer.kernels.linear import BlockSparseLinear

_STEM_CHANNELS = 4  # a k x k convolution is gathered pixel by pixel, which only pays with as few channels as an image


@dataclass(frozen=True)
class Unit:
    """A convolution with its BatchNorm folded in, and the activation after it.

    Attributes
    ----------
    name : str
        Of the convolution in the model.
    conv : nn.Conv2d
        With the BatchNorm folded in.
    activation : str or None
        Native name.
    """

    name: str
    conv: nn.Conv2d
    activation: str | None

    @property
    def kind(self) -> str | None:
        """``pointwise``, ``depthwise``, ``stem`` or None for a convolution that no stage has.

        Examples
        --------
        >>> Unit("", nn.Conv2d(8, 16, 1), None).kind
        'pointwise'
        """
        conv = self.conv
        kernel, stride, padding, dilation = (
            as_pair(getattr(conv, f)) if not isinstance(getattr(conv, f), str) else (-1, -2)
            for f in ("kernel_size", "stride", "padding", "dilation")
        )
        square = all(first == second for first, second in (kernel, stride, padding)) and dilation == (1, 1)
        if not square or conv.padding_mode != "zeros":
            return None
        if is_depthwise(conv) and kernel[0] in (3, 5) and stride[0] in (1, 2):
            return "depthwise"
        if conv.groups != 1:
            return None
        if kernel[0] == 1:
            return "pointwise" if stride[0] == 1 and padding[0] == 0 else None
        return "stem" if conv.in_channels <= _STEM_CHANNELS else None


@dataclass(frozen=True)
class Stage:
    """[expand] -> [depthwise filter] -> project [+ the input of the stage]."""

    expand: Unit | None
    filter: Unit | None
    project: Unit
    residual: bool = False

    @property
    def units(self) -> list[Unit]:
        """The parts that are there, in order."""
        return [u for u in (self.expand, self.filter, self.project) if u is not None]

    def macs(self, size: tuple[int, int]) -> list[float]:
        """Multiply-accumulates of each part, in order, on one image of ``size`` (height, width) pixels."""
        pixels, counts = float(size[0] * size[1]), []
        for unit in self.units:
            pixels /= unit.conv.stride[0] ** 2
            counts.append(pixels * unit.conv.weight.numel())
        return counts


def _packed(unit: Unit, mask: Tensor | None, precision: str) -> BlockSparseLinear:
    """The convolution over (tap, channel), outputs and inputs padded to multiples of 16."""
    weight = unit.conv.weight.detach().float()
    kept = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    rows, columns = -weight.shape[0] % 16, -weight[0].numel() % 16
    weight, kept = (F.pad(t.permute(0, 2, 3, 1).flatten(1), (0, columns, 0, rows)) for t in (weight, kept))
    bias = None if unit.conv.bias is None else F.pad(unit.conv.bias.detach().float(), (0, rows))
    # wider blocks could reach beyond the padded inputs
    width = min(best_width(kept, precision), max(16, UNIT[precision]))
    packed = pack(weight, kept, precision=precision, width=width, bias=bias)
    return BlockSparseLinear(packed, unit.activation, "native")


_FIELDS = [f"{part}_{n}" for part in ("expand", "filter") for n in ("kernel", "stride", "pad")]
_FIELDS += ["expand_act", "filter_act", "project_act", "residual"]
_NUMBERS = 3 + len(_FIELDS)  # of a stage in a plan: the layers of its three parts (or -1), then the fields


def stage_structs(plan: Sequence[int], layers: Sequence[Any]) -> Any:
    """The C structs of a chain; ``layers`` are packed weights, or (weight, bias) of depthwise filters.

    The caller keeps the layers alive.
    """
    structs = (native.StageStruct * (len(plan) // _NUMBERS))()
    for index, struct in enumerate(structs):
        expand, filters, project, *numbers = plan[index * _NUMBERS : (index + 1) * _NUMBERS]
        guard.need(0 <= project < len(layers) and max(expand, filters) < len(layers), "a stage without its layers")
        pairs = ((expand, False), (filters, True), (project, False))
        kinds = all(at < 0 or isinstance(layers[at], tuple) == plain for at, plain in pairs)
        guard.need(kinds, "a stage whose parts are of another kind")
        guard.need(all(act in native.ACTIVATIONS.values() for act in numbers[6:9]), "an unknown activation")
        if filters >= 0:
            channels = layers[project].shape[1]
            guard.vector(layers[filters][0], numbers[3] ** 2 * channels, "a depthwise filter")
            guard.vector(layers[filters][1], channels, "the bias of a depthwise filter")
        if expand >= 0:
            struct.expand = ctypes.pointer(layers[expand].struct)
        if filters >= 0:
            struct.filter, struct.filter_bias = (t.data_ptr() for t in layers[filters])
        struct.project = ctypes.pointer(layers[project].struct)
        for field, number in zip(_FIELDS, numbers, strict=True):
            setattr(struct, field, number)
    return structs


def chain_direct(x: Tensor, stages: Any, size: Sequence[int], padded: int) -> Tensor:
    """[batch, in, rows, columns] -> [batch, rows, columns, padded channels] of the given size."""
    check_image(x, x.shape[1] if x.ndim == 4 else 0)
    guard.sizes(*x.shape, *size, padded)
    guard.need(len(stages) > 0 and stages[-1].project[0].out == padded, f"{padded} channels of the last stage")
    at = (x.shape[2], x.shape[3])
    for stage in stages:
        for part, there in (("expand", bool(stage.expand)), ("filter", bool(stage.filter))):
            if there:
                kernel, stride, pad = (getattr(stage, f"{part}_{name}") for name in ("kernel", "stride", "pad"))
                guard.need(kernel > 0 and stride > 0 and pad >= 0, f"a kernel of {kernel} with stride {stride}")
                at = output_size(at, (kernel,) * 2, (stride,) * 2, (pad,) * 2, (1, 1))
    guard.need(tuple(at) == tuple(size) and min(at) > 0, f"an output of {tuple(size)}, which is {tuple(at)}")
    y = torch.empty((x.shape[0], *size, padded))
    arguments = native.ChainStruct(
        stages, len(stages), x.data_ptr(), *x.stride(), y.data_ptr(), *x.shape, torch.get_num_threads()
    )
    native.call(native.library().chain(ctypes.byref(arguments)), "chain of convolutions")
    return y


_CHAIN = "(Tensor x, Tensor[] tensors, int[] shapes, int[] plan, int[] size, int padded) -> Tensor"


@torch.library.custom_op("fewer::conv_chain", mutates_args=(), device_types="cpu", schema=_CHAIN)
def _conv_chain(x, tensors, shapes, plan, size, padded):
    layers: list[Any] = []
    at = 0
    for out, inputs, units in zip(*(iter(shapes),) * 3, strict=True):
        if units:
            layers.append(ops.NativeWeight(tensors[at : at + ops.TENSORS], (out, inputs), units))
            at += ops.TENSORS
        else:
            layers.append((tensors[at], tensors[at + 1]))
            at += 2
    return chain_direct(x, stage_structs(plan, layers), size, padded)


@_conv_chain.register_fake
def _(x, tensors, shapes, plan, size, padded):
    return x.new_empty((x.shape[0], *size, padded))


class NativeChain(nn.Module):
    """Stages of convolutions run by one native call; channels-last output. Inference only.

    The wide tensors inside of a stage stay in cache, in fp32 up to the depthwise filter and in the precision of the
    projection after it; between stages activations are fp32.

    Parameters
    ----------
    stages : sequence of Stage
        In order.
    masks : mapping of str to Tensor, optional
        By the name of a unit, of the shape of its weight.
    precision : str or mapping of str to str
        One for all, or one for each unit by name (fp32 where there is none).

    Raises
    ------
    FewerError
        Where the native library was not built.

    Examples
    --------
    >>> unit = Unit("conv", nn.Conv2d(8, 16, 1), "relu")
    >>> NativeChain([Stage(None, None, unit)])(torch.zeros(1, 8, 4, 4)).shape  # doctest: +SKIP
    torch.Size([1, 16, 4, 4])
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        masks: Mapping[str, Tensor] | None = None,
        precision: str | Mapping[str, str] = "fp32",
    ) -> None:
        super().__init__()
        native.library()
        masks = masks or {}
        self.layers = nn.ModuleList()
        self.names: dict[str, int] = {}
        self._plan: list[int] = []
        self._structs: tuple | None = None
        self.geometry: list[tuple[int, int, int]] = []
        self.in_channels = stages[0].units[0].conv.in_channels
        self.out_channels = stages[-1].project.conv.out_channels
        self.padded = -(-self.out_channels // 16) * 16
        for stage in stages:
            where, geometry, acts = [-1, -1, -1], [], [0, 0, 0]
            for part, unit in enumerate((stage.expand, stage.filter, stage.project)):
                conv = None if unit is None else unit.conv
                shape = (
                    (1, 1, 0)
                    if conv is None
                    else tuple(as_pair(v)[0] for v in (conv.kernel_size, conv.stride, conv.padding))
                )  # type: ignore[arg-type]
                geometry += shape
                if unit is None:
                    continue
                self.geometry.append(shape)  # type: ignore[arg-type]
                where[part], acts[part] = len(self.layers), native.ACTIVATIONS[unit.activation]
                if part == 1:
                    self.layers.append(_Filter(unit.conv))
                    continue
                wanted = precision if isinstance(precision, str) else precision.get(unit.name, "fp32")
                self.names[unit.name] = len(self.layers)
                self.layers.append(_packed(unit, masks.get(unit.name), wanted))
            self._plan += [*where, *geometry[:6], *acts, int(stage.residual)]

    def packed(self, name: str):
        """The packed weight of a unit."""
        return self.layers[self.names[name]].packed()  # type: ignore[operator]

    def _stages(self):
        """The C structs, rebuilt when a buffer has moved."""
        parts: list[Any] = [
            layer.native_weight() if isinstance(layer, BlockSparseLinear) else (layer.weight, layer.bias)
            for layer in self.layers
        ]
        held: list[Any] = []
        for part in parts:
            held += part if isinstance(part, tuple) else [part]
        state = guard.state_of([part for part in held if isinstance(part, Tensor)])
        known = self._structs
        if known is None or known[2] != state or any(a is not b for a, b in zip(known[1], held, strict=True)):
            known = self._structs = (stage_structs(self._plan, parts), held, state)
        return known[0]

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [batch, in, rows, columns] -> [batch, out, rows, columns], channels-last in memory."""
        check_image(x, self.in_channels)
        size = (x.shape[2], x.shape[3])
        for kernel, stride, pad in self.geometry:
            size = output_size(size, (kernel,) * 2, (stride,) * 2, (pad,) * 2, (1, 1))
        if min(size) < 1:
            raise FewerError(f"an image of {tuple(x.shape[2:])} is too small for these convolutions")
        if ops.tracing(x):
            tensors, shapes = [], []
            for layer in self.layers:
                if isinstance(layer, BlockSparseLinear):
                    tensors += layer.tensors()
                    shapes += [layer.out_features, layer.in_features, layer.units]
                else:
                    tensors += [layer.weight, layer.bias]
                    shapes += [0, 0, 0]
            y = torch.ops.fewer.conv_chain(x, tensors, shapes, self._plan, list(size), self.padded)
        else:
            y = chain_direct(x, self._stages(), size, self.padded)
        return y.permute(0, 3, 1, 2)[:, : self.out_channels]

    def __getstate__(self):
        return {**self.__dict__, "_structs": None}  # pointers do not survive a copy

    def _apply(self, fn: Any, recurse: bool = True) -> NativeChain:
        self._structs = None
        return super()._apply(fn, recurse)


class _Filter(nn.Module):
    """Depthwise weights [taps, channels] and bias, channels padded to a multiple of 16."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        pad = -conv.in_channels % 16
        weight = conv.weight.detach().float().flatten(1).T
        bias = torch.zeros(conv.in_channels) if conv.bias is None else conv.bias.detach().float()
        self.register_buffer("weight", F.pad(weight, (0, pad)).contiguous())
        self.register_buffer("bias", F.pad(bias, (0, pad)).contiguous())

    def _apply(self, fn: Any, recurse: bool = True) -> _Filter:
        """Casts and moves; see :func:`fewer.kernels.guard.keep_packed`."""
        guard.keep_packed(self, fn, "a depthwise filter")
        return self
