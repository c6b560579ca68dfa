"""What each layer takes inside of a whole model that a runtime runs, fusions and changes of layout included."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fewer.runtimes.integers import last_output
from fewer.runtimes.planned import PlannedGraph
from fewer.runtimes.session import open_session

__all__ = ["layer_ms", "shared_out"]

_BOUNDARY = re.compile(r"[_/]")


def layer_ms(
    planned: PlannedGraph,
    runtime: str,
    precisions: Mapping[str, str],
    arrays: Sequence[np.ndarray],
    threads: int,
    rest: str = "fp32",
) -> tuple[dict[str, float], float]:
    """Profiled milliseconds of each layer, and of all nodes together.

    Parameters
    ----------
    planned
        The exported model.
    runtime, precisions, threads
        How it is run.
    arrays
        An input.
    rest
        What the layers that are not integers run in.

    Notes
    -----
    Profiling makes a pass slower: what counts are the shares of the whole.
    """
    file = planned.file(runtime, precisions)
    session = open_session(runtime, file.SerializeToString(), threads, rest, profiled=True)
    times = session.node_ms(arrays)
    known = {name for node in file.graph.node for name in (node.name, *node.output)}
    return shared_out(times, _owners(planned, file), known), sum(times.values())


def _owners(planned: PlannedGraph, file: Any) -> dict[str, str]:
    """Layer of each node of a file that serves one layer only: its products, what follows, and the rounding before."""
    owners = {node: layer for layer, nodes in planned.layers.items() for node in nodes if layer}
    ends = {node.name: (node.output[0], last_output(node, file)) for node in file.graph.node if node.name in owners}
    readers: dict[str, set[str]] = {}
    for node in file.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(owners.get(node.name, ""))
    for node in file.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.name.endswith(("_q", "_d")):
            tensor = node.name[: -len("_bytes_q")] + "_float"
            layers = readers.get(tensor, set())
            if len(layers) == 1 and (layer := next(iter(layers))):
                owners[node.name] = owners[node.output[0]] = layer
    # a runtime may name a fused layer by what comes out of it
    for name, tensors in ends.items():
        for tensor in tensors:
            owners.setdefault(tensor, owners[name])
    for name, layer in _followers(file, owners).items():
        owners.setdefault(name, layer)
    return owners


_FUSED = frozenset(
    ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Relu", "LeakyRelu", "Elu", "Clip", "Sigmoid", "HardSigmoid",
     "HardSwish", "Tanh", "Erf", "Gelu", "Mish", "Softplus", "BatchNormalization")
)  # fmt: skip
"""Number by number: runtimes make these a part of the product before them, and may name the whole by the last one."""


def _followers(file: Any, owners: Mapping[str, str]) -> dict[str, str]:
    """Layer of the nodes, and of their results, that go on number by number with what a layer gives.

    Of several inputs the one that is made last counts, which is where a sum with an earlier tensor is taken.
    """
    made: dict[str, tuple[int, str]] = {}  # tensor -> when it was made, and by which layer
    found: dict[str, str] = {}
    for index, node in enumerate(file.graph.node):
        latest = max((made[name] for name in node.input if name in made), default=(0, ""))
        layer = owners.get(node.name, "")
        if not layer and node.op_type in _FUSED and latest[1]:
            layer = latest[1]
            found |= dict.fromkeys((node.name, *node.output), layer)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            layer = latest[1]  # whoever reads it owns the node, but numbers are still those of the layer before
        for name in node.output:
            made[name] = (index, layer)
    return found


def shared_out(times: Mapping[str, float], owners: Mapping[str, str], known: Collection[str] = ()) -> dict[str, float]:
    """Milliseconds of each layer from those of the nodes that a runtime made of the graph.

    onnxruntime puts an ending to the name of a node that it changes; OpenVINO puts the name at the end of that of a
    change of layout before it. A name that is ``known`` in the graph itself is taken as it is.

    Examples
    --------
    >>> times = {"conv_7_token_3": 1.0, "x_abcd_acdb_conv_7/WithoutBiases": 0.5, "add": 2.0}
    >>> shared_out(times, {"conv_7": "a", "conv_70": "b"})
    {'a': 1.5}
    >>> shared_out({"mul": 1.0, "mul_1": 0.5}, {"mul": "a"}, {"mul", "mul_1"})
    {'a': 1.0}
    """
    found: dict[str, float] = {}
    for name, ms in times.items():
        near = [name] if name in known else _parts(name)
        layer = next((owners[part] for part in near if part in owners), None)
        if layer is not None:
            found[layer] = found.get(layer, 0.0) + ms
    return found


def _parts(name: str) -> list[str]:
    """What a node may have been called before a runtime put something in front of its name, behind it, or both."""
    cuts = [match.start() for match in _BOUNDARY.finditer(name)]
    near = [name, *(name[:at] for at in reversed(cuts)), *(name[at + 1 :] for at in cuts)]
    for at in cuts:
        near += [name[at + 1 : end] for end in reversed(cuts) if end > at]
    return near
