"""An ONNX graph in which chosen layers multiply integers: QuantizeLinear and DequantizeLinear around them (QDQ)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from fewer.formats.integers import as_integers
from fewer.quantize.qdq import InputRange

__all__ = ["last_output", "rounded_tensors", "with_int8"]

_FOLLOWERS = ("Relu", "Clip")  # are part of the convolution before them: bytes end where they end
_THROUGH = ("Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
"""Run on bytes where all that they read and what they give are bytes."""


def rounded_tensors(model: Any, nodes: Iterable[Any], outputs: bool) -> list[str]:
    """The tensors that have to be bytes for these nodes to multiply integers.

    Parameters
    ----------
    model : onnx.ModelProto
        The graph.
    nodes
        Products and convolutions, of this graph.
    outputs
        Whether results of convolutions are rounded too: onnxruntime has no integer convolution without.
    """
    chosen = list(nodes)
    names = [node.input[0] for node in chosen]
    if outputs:
        readers = _readers(model)
        made = {_end(node, readers) for node in chosen if node.op_type == "Conv"}
        bytes_now = made | set(names)
        for node in model.graph.node:  # in order, so that one addition after another is found
            if node.op_type in _THROUGH:
                read = [name for name in node.input if name and not _is_constant(model, name)]
                if read and all(name in bytes_now for name in read):
                    end = _end(node, readers)
                    made.add(end)
                    bytes_now.add(end)
        given = {value.name for value in model.graph.output}
        names += [name for name in made if name not in given]
    return list(dict.fromkeys(names))


def with_int8(
    model: Any,
    nodes: Iterable[str],
    ranges: Mapping[str, InputRange],
    *,
    outputs: bool = False,
    half: bool = False,
) -> Any:
    """A copy of a graph in which some nodes multiply integers.

    Weights are rounded row by row, symmetrically; a weight that is rounded already stays as it is.

    Parameters
    ----------
    model : onnx.ModelProto
        With weights inside.
    nodes
        Names of products and convolutions with constant weights.
    ranges
        Of all tensors of :func:`rounded_tensors`.
    outputs
        As there.
    half
        Round weights to 7 bits: for CPUs whose integer products of 8 by 8 bits overflow.

    Returns
    -------
    onnx.ModelProto
    """
    from onnx import helper, numpy_helper

    wanted = set(nodes)
    made = copy.deepcopy(model)
    graph = made.graph
    chosen = [node for node in graph.node if node.name in wanted]
    rounded = rounded_tensors(made, chosen, outputs)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    weights: dict[tuple[str, int], str] = {}
    before: dict[str, list[Any]] = {}  # what has to stand before a node
    constants: list[Any] = []

    def constant(name: str, array: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(array, name))
        return name

    for node in chosen:
        axis = _row_axis(node, len(stored[node.input[1]].dims))
        key = (node.input[1], axis)
        if key not in weights:
            values = numpy_helper.to_array(stored[node.input[1]]).astype(np.float32)
            scale, integers = _integers(values, axis, 63 if half else 127)
            label = f"{node.input[1]}_{axis}"
            inputs = [
                constant(f"{label}_int8", integers),
                constant(f"{label}_scale", scale),
                constant(f"{label}_zero", np.zeros(scale.shape, np.int8)),
            ]
            dense = f"{label}_dense"
            before.setdefault(node.name, []).append(
                helper.make_node("DequantizeLinear", inputs, [dense], name=f"{dense}_node", axis=axis)
            )
            weights[key] = dense
        node.input[1] = weights[key]
    pairs: dict[str, list[Any]] = {}
    for name in rounded:
        how, label = ranges[name], f"{name}_bytes"
        scale = constant(f"{label}_scale", np.array(how.scale, np.float32))
        zero = constant(f"{label}_zero", np.array(how.zero, np.uint8))
        pairs[name] = [
            helper.make_node("QuantizeLinear", [name, scale, zero], [label], name=f"{label}_q"),
            helper.make_node("DequantizeLinear", [label, scale, zero], [f"{name}_float"], name=f"{label}_d"),
        ]
    everyone = _reads_bytes(made, chosen, outputs)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in pairs and everyone(node, index):
                node.input[index] = f"{name}_float"
    _put(graph, before, pairs)
    graph.initializer.extend(constants)
    _sweep(graph)
    return made


def _reads_bytes(model: Any, chosen: list[Any], outputs: bool) -> Callable[[Any, int], bool]:
    """Which inputs of which nodes read the rounded tensor: those of the chosen nodes; with ``outputs``, all."""
    products = {node.name for node in chosen}
    if outputs:
        return lambda node, index: True
    return lambda node, index: node.name in products and index == 0


def _put(graph: Any, before: Mapping[str, list[Any]], pairs: Mapping[str, list[Any]]) -> None:
    """Write the nodes down anew, each pair behind the node that gives its tensor."""
    nodes: list[Any] = []
    for value in graph.input:
        nodes += pairs.get(value.name, [])
    for node in graph.node:
        nodes += before.get(node.name, []) if node.name else []
        nodes.append(node)
        for name in node.output:
            nodes += pairs.get(name, [])
    copies = [copy.deepcopy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _sweep(graph: Any) -> None:
    """Drop constants that nothing reads any more."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(kept) < len(graph.initializer):
        kept = [copy.deepcopy(tensor) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(kept)


def _integers(values: np.ndarray, axis: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale of each row, and the integers in the weight's own shape."""
    rows = np.moveaxis(values, axis, 0)
    flat = np.ascontiguousarray(rows.reshape(len(rows), -1))
    if top == 127:
        scale, steps = (t.numpy() for t in as_integers(torch.from_numpy(flat)))
    else:
        scale = np.abs(flat).max(1) / top
        scale = np.where(scale > 0, scale, 1.0)
        steps = np.round(flat / scale[:, None])
    integers = np.clip(np.round(steps), -127, 127).astype(np.int8).reshape(rows.shape)
    return scale.astype(np.float32), np.ascontiguousarray(np.moveaxis(integers, 0, axis))


def _row_axis(node: Any, ndim: int) -> int:
    """The axis of a constant weight that counts outputs."""
    if node.op_type == "Conv":
        return 0
    turned = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if turned else ndim - 1


def _readers(model: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def last_output(node: Any, model: Any) -> str:
    """The tensor after a node and the activations that a runtime makes a part of it."""
    return _end(node, _readers(model))


def _end(node: Any, readers: Mapping[str, list[Any]]) -> str:
    """The tensor after a node and the activation that belongs to it."""
    name = node.output[0]
    while len(readers.get(name, [])) == 1 and readers[name][0].op_type in _FOLLOWERS:
        name = readers[name][0].output[0]
    return name


def _is_constant(model: Any, name: str) -> bool:
    return any(tensor.name == name for tensor in model.graph.initializer)
