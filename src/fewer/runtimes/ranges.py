"""Ranges of the tensors inside of a graph, found by running it on calibration images."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from fewer.core.errors import FewerError
from fewer.quantize.qdq import InputRange
from fewer.runtimes.export import first_line
from fewer.runtimes.names import RUNTIMES
from fewer.runtimes.session import open_session

__all__ = ["tensor_ranges"]

_SAMPLES = 4096  # values of each tensor and batch
_SHRINK = tuple(round(1 - 0.04 * i, 2) for i in range(16))  # of the whole range, down to 0.4 of it


def tensor_ranges(
    model: Any, names: Iterable[str], batches: Sequence[np.ndarray], runtime: str, threads: int
) -> dict[str, InputRange]:
    """For each tensor the range that loses least when its values are rounded to bytes.

    Parameters
    ----------
    model : onnx.ModelProto
        With floating-point weights; not changed.
    names
        Tensors of the graph, or its input.
    batches
        Calibration images, each of the size that the graph takes.
    runtime, threads
        What runs the graph.

    Returns
    -------
    dict of str to InputRange
        Of 16 ranges between the whole one and 0.4 of it, the one with the least squared error on a sample of values.

    Raises
    ------
    FewerError
        When the runtime cannot run the graph.
    """
    from onnx import TensorProto, helper

    inputs = [value.name for value in model.graph.input]
    wanted = [name for name in dict.fromkeys(names) if name not in inputs]
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in (*wanted, inputs[0])}
    ends: dict[str, tuple[float, float]] = dict.fromkeys(seen, (0.0, 0.0))
    opened = copy.deepcopy(model)
    own = {value.name for value in opened.graph.output}
    added = [name for name in wanted if name not in own]
    opened.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in added)
    session = open_session(runtime, opened.SerializeToString(), threads)
    order = [value.name for value in opened.graph.output]
    for batch in batches:
        try:
            found = dict(zip(order, session.run([batch]), strict=True))
        except Exception as error:  # of a runtime, whatever it raises
            raise FewerError(f"{RUNTIMES[runtime].label} cannot run this model: {first_line(error)}") from error
        found[inputs[0]] = batch
        for name in seen:
            # no byte stands for what is no number: a model that gives such is told by its answers
            values = (
                torch.from_numpy(np.ascontiguousarray(found[name])).flatten().float().nan_to_num(posinf=0, neginf=0)
            )
            low, high = ends[name]
            ends[name] = (min(low, float(values.min())), max(high, float(values.max())))
            seen[name].append(values[:: max(1, len(values) // _SAMPLES)].clone())
    ranges = {}
    for name, parts in seen.items():
        values, (low, high) = torch.cat(parts), ends[name]
        offered = [InputRange.of(share * low, share * high) for share in _SHRINK]
        ranges[name] = min(offered, key=lambda one: float((one.rounded(values) - values).square().mean()))
    return ranges
