"""An ONNX graph whose int8 layers are stored as integers, and whose activations are rounded in the graph itself.

Runtimes read QuantizeLinear and DequantizeLinear around a product (QDQ) as the wish to multiply integers. A weight is
stored as the int8 values and the row scales that a run has found. An activation needs one scale for the whole tensor
there, fixed in advance: coarser than the scale per token of this package's own kernels, which no such graph can say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fewer.formats.integers import as_integers, exact_scales
from fewer.formats.ranges import levels
from fewer.models.inputs import change_input, layer_input
from fewer.models.running import Forward, call, evaluating

__all__ = ["InputRange", "input_ranges", "round_to_range", "rounding_to_range", "with_integers"]

_SAMPLES = 20_000  # values of each batch from which a range is found
_SHRINK = tuple(round(1 - 0.04 * i, 2) for i in range(16))  # of the whole range, down to 0.4 of it
_TOP = 255
_SAME = 1e-5  # of the largest weight of a layer: what an exporter's own arithmetic may change


@dataclass(frozen=True)
class InputRange:
    """How a tensor is rounded to unsigned bytes: ``(byte - zero) * scale``.

    Attributes
    ----------
    scale, zero
        Of the bytes.
    low, high
        The least and the largest byte that is used; a range of fewer than 8 bits uses few of them.
    """

    scale: float
    zero: int
    low: int = field(default=0, repr=False)
    high: int = field(default=_TOP, repr=False)

    def to_list(self) -> list[float]:
        """Plain numbers; ends are left out where all bytes are used.

        Examples
        --------
        >>> InputRange(0.5, 128).to_list(), InputRange(0.5, 0, 0, 15).to_list()
        ([0.5, 128], [0.5, 0, 0, 15])
        """
        ends = [] if (self.low, self.high) == (0, _TOP) else [self.low, self.high]
        return [self.scale, self.zero, *ends]

    @classmethod
    def of(cls, low: float, high: float) -> InputRange:
        """From the values that the bytes shall reach; zero is always one of them.

        Examples
        --------
        >>> InputRange.of(-1.0, 1.55)
        InputRange(scale=0.01, zero=100)
        """
        low, high = min(0.0, low), max(0.0, high)
        scale = (high - low) / _TOP or 1.0
        return cls(float(f"{scale:.9g}"), round(-low / scale))

    def rounded(self, x: Tensor) -> Tensor:
        """What becomes of values."""
        return ((x / self.scale).round() + self.zero).clamp(self.low, self.high).sub(self.zero) * self.scale


@contextmanager
def rounding_to_range(modules: Sequence[nn.Module], how: InputRange) -> Iterator[None]:
    """Layers see their input rounded to bytes of one range, as in a graph with integers, inside of a ``with`` block.

    Examples
    --------
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> with rounding_to_range([layer], InputRange(1.0, 0)):
    ...     y = layer(torch.tensor([[1.4]]))
    >>> torch.allclose(y, layer(torch.tensor([[1.0]])))
    True
    """
    handles = [round_to_range(module, how) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def round_to_range(module: nn.Module, how: InputRange) -> RemovableHandle:
    """Have one layer see its input rounded until the handle is removed, also where it is called as ``layer(input=x)``.

    Examples
    --------
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> handle = round_to_range(layer, InputRange(1.0, 0))
    >>> torch.equal(layer(torch.tensor([[1.4]])), layer(input=torch.tensor([[1.0]])))
    True
    """
    return change_input(module, how.rounded)


def input_ranges(
    model: nn.Module, layers: Sequence[str], batches: Iterable[Tensor], forward: Forward | None = None
) -> dict[str, InputRange]:
    """Find the range of each layer's input that loses least when it is rounded to bytes.

    Parameters
    ----------
    model
        In evaluation mode.
    layers
        Names of linear and convolution layers.
    batches
        Calibration images.
    forward
        ``forward(model, batch)``.

    Returns
    -------
    dict of str to InputRange
        Of 16 ranges between the whole one and 0.4 of it, the one with the least squared error on a sample of values.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 1))
    >>> input_ranges(net, ["0"], [torch.tensor([[-1.0, 1.55]])])["0"].zero
    100
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    ends: dict[str, tuple[float, float]] = dict.fromkeys(layers, (0.0, 0.0))
    handles = []
    for name in layers:

        def keep(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], name: str = name) -> None:
            x = layer_input(inputs, keywords).detach().flatten()
            low, high = ends[name]
            ends[name] = (min(low, float(x.min())), max(high, float(x.max())))
            seen[name].append(x[:: max(1, len(x) // _SAMPLES)].float())

        handles.append(model.get_submodule(name).register_forward_pre_hook(keep, with_kwargs=True))
    try:
        with evaluating(model):
            for batch in batches:
                call(model, batch, forward)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, parts in seen.items():
        if not parts:
            continue  # a layer that was not run
        x, (low, high) = torch.cat(parts), ends[name]
        offered = [InputRange.of(share * low, share * high) for share in _SHRINK]
        found[name] = min(offered, key=lambda one: float((one.rounded(x) - x).square().mean()))
    return found


def with_integers(
    graph: Any, weights: Mapping[str, Tensor], ranges: Mapping[str, InputRange] | None = None
) -> list[str]:
    """Store the int8 and int4 layers of an ONNX model as integers, in place; both as bytes.

    Parameters
    ----------
    graph : onnx.ModelProto
        With the weights inside.
    weights
        Of these layers, by name, as they are in the model: rounded. Layers that share one are all named, in the order
        in which they run.
    ranges
        Of the layers' inputs. None leaves activations alone: the graph then computes the same as before.

    Returns
    -------
    list of str
        The layers that were found in the graph.

    Notes
    -----
    An exporter renames, transposes and joins what it finds, and a normalisation that it multiplies in changes the scale
    and maybe the sign of rows. So a weight is known by its rows, each up to a factor.
    """
    from onnx import numpy_helper

    wanted: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
    for name, weight in weights.items():
        integers = _integers(weight.detach().float().flatten(1)).numpy().astype(np.int8)
        wanted.setdefault(integers.shape, []).append((name, integers))
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    dense: dict[str, tuple[str, np.ndarray, np.ndarray, int]] = {}  # by the name of a weight in the graph
    names: dict[int, str] = {}  # of layers, by the node that multiplies
    for place, nodes_of in readers.items():
        products = [node for node in nodes_of if _multiplies(node, place)]
        if place not in stored or not products:
            continue
        values = numpy_helper.to_array(stored[place])
        axes = {_row_axis(node, values) for node in products}
        axis = axes.pop()
        match = _find(values, axis, wanted) if axis is not None and not axes else None
        if match is None or axis is None:
            continue
        dense[place] = (*match, axis)
        for node in products:  # a weight that several layers share has several names; one that runs twice has one
            names[id(node)] = match[0]
            if node is not products[-1] and (other := _find(values, axis, wanted)) is not None:
                match = other
    return _exchanged(graph, dense, names, ranges or {})


def _multiplies(node: Any, place: str) -> bool:
    return node.op_type in ("MatMul", "Gemm", "Conv") and len(node.input) > 1 and node.input[1] == place


def _exchanged(
    graph: Any,
    dense: Mapping[str, tuple[str, np.ndarray, np.ndarray, int]],
    names: Mapping[int, str],
    ranges: Mapping[str, InputRange],
) -> list[str]:
    """Put integers in place of weights, before the first node that reads them, and round inputs of products."""
    from onnx import helper, numpy_helper

    kept = [tensor for tensor in graph.graph.initializer if tensor.name not in dense]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)
    nodes: list[Any] = []
    told: set[str] = set()
    rounded: dict[tuple[str, InputRange], str] = {}
    for node in graph.graph.node:
        for index, place in enumerate(node.input):
            if place not in dense:
                continue
            _, scale, integers, axis = dense[place]
            if place not in told:
                told.add(place)
                new = [numpy_helper.from_array(a, f"{place}_{k}") for k, a in (("int8", integers), ("scale", scale))]
                new.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), f"{place}_zero"))
                graph.graph.initializer.extend(new)
                inputs = [tensor.name for tensor in new]
                nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{place}_dense"], axis=axis))
            node.input[index] = f"{place}_dense"
        name = names.get(id(node))
        if name is not None and name in ranges:
            node.input[0] = _rounded_input(graph, nodes, rounded, node.input[0], ranges[name])
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return list(dict.fromkeys(names.values()))


def _row_axis(node: Any, values: np.ndarray) -> int | None:
    """The axis of a constant weight that counts outputs."""
    if values.dtype != np.float32:
        return None
    if node.op_type == "Conv":
        return 0
    if values.ndim != 2:
        return None
    turned = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if turned else 1


def _integers(matrix: Tensor) -> Tensor:
    """Integers of a rounded weight: those of 4 bits where it has so few values, else those of 8."""
    scale = exact_scales(matrix, range(levels(4), 0, -1))
    return as_integers(matrix)[1] if scale is None else (matrix / scale[:, None]).round()


def _find(
    values: np.ndarray, axis: int, wanted: dict[tuple[int, ...], list[tuple[str, np.ndarray]]]
) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Name, scale of each row and integers of a weight, where it is one of those wanted; each is found once."""
    rows = np.moveaxis(values, axis, 0)
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    for index, (name, known) in enumerate(wanted.get(flat.shape, [])):
        size = np.square(known, dtype=np.float64).sum(1)
        factor = (flat * known).sum(1) / np.maximum(size, 1.0)  # the one that fits a row best
        if np.abs(factor[:, None] * known - flat).max() <= _SAME * max(1e-30, float(np.abs(flat).max())):
            del wanted[flat.shape][index]
            integers = known * np.where(factor < 0, -1, 1).astype(np.int8)[:, None]
            scale = np.where(factor == 0, 1.0, np.abs(factor)).astype(np.float32)
            return name, scale, np.moveaxis(integers.reshape(rows.shape), 0, axis).copy()
    return None


def _rounded_input(
    graph: Any, nodes: list[Any], done: dict[tuple[str, InputRange], str], tensor: str, how: InputRange
) -> str:
    """The name of a tensor after rounding, which is added where it is not there yet."""
    from onnx import helper, numpy_helper

    if (tensor, how) not in done:
        name = f"{tensor}_bytes{len(done)}"
        scale = numpy_helper.from_array(np.array(how.scale, np.float32), f"{name}_scale")
        zero = numpy_helper.from_array(np.array(how.zero, np.uint8), f"{name}_zero")
        graph.graph.initializer.extend([scale, zero])
        within = tensor
        if (how.low, how.high) != (0, _TOP):
            within = f"{name}_within"
            ends = [f"{name}_low", f"{name}_high"]
            for end, byte in zip(ends, (how.low, how.high), strict=True):
                value = np.array((byte - how.zero) * how.scale, np.float32)
                graph.graph.initializer.append(numpy_helper.from_array(value, end))
            nodes.append(helper.make_node("Clip", [tensor, *ends], [within]))
        nodes.append(helper.make_node("QuantizeLinear", [within, scale.name, zero.name], [name]))
        nodes.append(helper.make_node("DequantizeLinear", [name, scale.name, zero.name], [f"{name}_float"]))
        done[tensor, how] = f"{name}_float"
    return done[tensor, how]
