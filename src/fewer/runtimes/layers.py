"""What each layer takes inside of a whole model that a runtime runs, fusions and changes of layout included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewer.runtimes.planned import PlannedGraph, session_precision
from fewer.runtimes.session import open_session

__all__ = ["layer_ms", "shared_out"]


def layer_ms(
    planned: PlannedGraph, runtime: str, precisions: Mapping[str, str], arrays: Sequence[np.ndarray], threads: int
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

    Notes
    -----
    Profiling makes a pass slower: what counts are the shares of the whole.
    """
    file = planned.file(runtime, precisions)
    session = open_session(
        runtime, file.SerializeToString(), threads, session_precision(runtime, precisions.values()), profiled=True
    )
    times = session.node_ms(arrays)
    return shared_out(times, _owners(planned, file)), sum(times.values())


def _owners(planned: PlannedGraph, file: Any) -> dict[str, str]:
    """Layer of each node of a file that serves one layer only: its products, and the rounding of its input."""
    owners = {node: layer for layer, nodes in planned.layers.items() for node in nodes if layer}
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
    return owners


def shared_out(times: Mapping[str, float], owners: Mapping[str, str]) -> dict[str, float]:
    """Milliseconds of each layer from those of the nodes that a runtime made of the graph.

    onnxruntime puts an ending to the name of a node that it changes; OpenVINO puts the name at the end of that of a
    change of layout before it.

    Examples
    --------
    >>> shared_out({"conv_7_token_3": 1.0, "x_abcd_acdb_conv_7": 0.5, "add": 2.0}, {"conv_7": "a", "conv_70": "b"})
    {'a': 1.5}
    """
    found: dict[str, float] = {}
    for name, ms in times.items():
        layer = owners.get(name)
        if layer is None:
            parts = name.split("_")
            near = ("_".join(parts[:i]) for i in range(len(parts) - 1, 0, -1))
            layer = next((owners[n] for n in near if n in owners), None)
        if layer is None:
            near = ("_".join(parts[i:]) for i in range(1, len(parts)))
            layer = next((owners[n] for n in near if n in owners), None)
        if layer is not None:
            found[layer] = found.get(layer, 0.0) + ms
    return found
