"""An ONNX graph whose int8 layers are stored as integers, and whose activations are rounded in the graph itself.

Runtimes read QuantizeLinear and DequantizeLinear around a product (QDQ) as the wish to multiply integers. A weight is
stored as the int8 values and the row scales that a run has found. An activation needs one scale for the whole tensor
there, fixed in advance: coarser than the scale per token of this package's own kernels, which no such graph can say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.formats.integers import as_integers
from fewer.models.inputs import layer_input
from fewer.models.running import Forward, call, evaluating

__all__ = ["InputRange", "input_ranges", "rounding_to_range", "with_integers"]

_SAMPLES = 20_000  # values of each batch from which a range is found
_SHRINK = tuple(round(1 - 0.04 * i, 2) for i in range(16))  # of the whole range, down to 0.4 of it
_TOP = 255


@dataclass(frozen=True)
class InputRange:
    """How a tensor is rounded to unsigned bytes: ``(byte - zero) * scale``."""

    scale: float
    zero: int

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
        return ((x / self.scale).round() + self.zero).clamp(0, _TOP).sub(self.zero) * self.scale


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

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (how.rounded(inputs[0]), *inputs[1:])

    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
    """Store the int8 layers of an ONNX model as integers, in place.

    Parameters
    ----------
    graph : onnx.ModelProto
        With the weights inside.
    weights
        Of the int8 layers, by name, as they are in the model: rounded.
    ranges
        Of the layers' inputs. None leaves activations alone: the graph then computes the same as before.

    Returns
    -------
    list of str
        The layers that were found in the graph.

    Notes
    -----
    An exporter renames, transposes and joins what it finds, so a weight is known by its integers, and where a
    normalisation has been multiplied in, which changes the scale of rows and maybe their sign, by those up to a sign.
    """
    from onnx import helper, numpy_helper

    wanted: dict[tuple[int, ...], list[tuple[str, np.ndarray]]] = {}
    for name, weight in weights.items():
        integers = as_integers(weight.detach().float().flatten(1))[1].numpy().astype(np.int8)
        wanted.setdefault(integers.shape, []).append((name, integers))
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    read_by: dict[str, int] = {}
    for node in graph.graph.node:
        for name in node.input:
            read_by[name] = read_by.get(name, 0) + 1
    nodes: list[Any] = []
    done: list[str] = []
    rounded: dict[tuple[str, InputRange], str] = {}
    for node in graph.graph.node:
        place = len(node.input) > 1 and node.op_type in ("MatMul", "Gemm", "Conv") and node.input[1]
        if place and place in stored and read_by[place] == 1:
            values = numpy_helper.to_array(stored[place])
            axis = _row_axis(node, values)
            match = _find(values, axis, wanted) if axis is not None else None
            if match is not None:
                name, scale, integers = match
                new = [numpy_helper.from_array(a, f"{place}_{k}") for k, a in (("int8", integers), ("scale", scale))]
                new.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), f"{place}_zero"))
                graph.graph.initializer.extend(new)
                graph.graph.initializer.remove(stored.pop(place))
                inputs = [tensor.name for tensor in new]
                nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{place}_dense"], axis=axis))
                node.input[1] = f"{place}_dense"
                if ranges is not None and name in ranges:
                    node.input[0] = _rounded_input(graph, nodes, rounded, node.input[0], ranges[name])
                done.append(name)
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return done


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


def _find(
    values: np.ndarray, axis: int, wanted: dict[tuple[int, ...], list[tuple[str, np.ndarray]]]
) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Name, scale of each row and integers of a weight, where it is one of those wanted; each is found once."""
    rows = np.moveaxis(values, axis, 0)
    flat = rows.reshape(len(rows), -1)
    scale, steps = (t.numpy() for t in as_integers(torch.from_numpy(flat.copy())))
    integers = steps.astype(np.int8)
    for index, (name, known) in enumerate(wanted.get(integers.shape, [])):
        sign = np.where((integers == -known).all(1), -1, 1)
        same = (integers * sign[:, None] == known).all() and np.abs(steps - integers).max() < 1e-2
        if same and np.abs(integers * scale[:, None] - flat).max() <= 1e-5 * max(1e-30, float(np.abs(flat).max())):
            del wanted[integers.shape][index]
            return name, scale.astype(np.float32), np.moveaxis(integers.reshape(rows.shape), 0, axis).copy()
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
        nodes.append(helper.make_node("QuantizeLinear", [tensor, scale.name, zero.name], [name]))
        nodes.append(helper.make_node("DequantizeLinear", [name, scale.name, zero.name], [f"{name}_float"]))
        done[tensor, how] = f"{name}_float"
    return done[tensor, how]
