"""Where the layers of a torch model are in its ONNX graph."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["REST", "layer_nodes", "weighted_nodes"]

REST = ""
"""Stands for nodes with constant weights that belong to no named layer, such as the joint projection of
``nn.MultiheadAttention``."""

_PRODUCTS = ("Conv", "Gemm", "MatMul")


def weighted_nodes(model: Any) -> list[Any]:
    """Products and convolutions whose second input is a constant, in the order of the graph; all get a name."""
    stored = {tensor.name for tensor in model.graph.initializer}
    names = {node.name for node in model.graph.node}
    found = []
    for number, node in enumerate(model.graph.node):
        if node.op_type in _PRODUCTS and len(node.input) > 1 and node.input[1] in stored:
            if not node.name:
                node.name = next(n for n in (f"node_{number}", f"node_{number}_fewer") if n not in names)
            found.append(node)
    return found


def layer_nodes(model: Any, layers: Mapping[str, Iterable[str]]) -> dict[str, list[Any]]:
    """The nodes that multiply by each layer's weight.

    Parameters
    ----------
    model : onnx.ModelProto
        As torch exports it: nodes know the modules that they come from, and weights keep their names, though one of
        both is lost where a normalisation is folded into a convolution, or where two layers hold the same values.
    layers
        Layer name -> all names under which its weight is known.

    Returns
    -------
    dict of str to list of onnx.NodeProto
        By layer, and under :data:`REST` all that belong to none. A layer that was not found is not listed.
    """
    owner = {alias: name for name, aliases in layers.items() for alias in (name, *aliases)}
    found: dict[str, list[Any]] = {}
    for node in weighted_nodes(model):
        scopes = [scope for scope in reversed(_scopes(node)) if scope in owner]
        weight = node.input[1].removesuffix(".weight") if node.input[1].endswith(".weight") else None
        if node.input[1] == "weight":  # the model itself is the layer
            weight = ""
        name = owner[scopes[0]] if scopes else owner.get(weight) if weight is not None else None
        found.setdefault(REST if name is None else name, []).append(node)
    return found


def _scopes(node: Any) -> list[str]:
    """Names of the modules around a node, from the outside to the inside."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError):
                return []
            return [str(scope) for scope in scopes[:-1] if scope]  # the last one is the operator
    return []
