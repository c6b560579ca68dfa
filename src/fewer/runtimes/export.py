"""A torch model as one ONNX graph in memory, with the names of its layers still known."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.models.running import attributes_kept
from fewer.runtimes.names import missing
from fewer.runtimes.structure import flattened

__all__ = ["first_line", "free_shapes", "quiet", "takes_any", "to_onnx", "write_onnx"]

_MOST_BYTES = 1_800_000_000  # one protobuf file cannot hold more than two gigabytes


def free_shapes(free: Mapping[int, str]) -> dict[str, Any]:
    """What torch's exporters are told of axes of the lone input along which any number may come.

    Examples
    --------
    >>> list(free_shapes({1: "frames"})), free_shapes({})
    (['dynamic_shapes'], {})
    """
    return {"dynamic_shapes": ({axis: torch.export.Dim(name, min=2) for axis, name in free.items()},)} if free else {}


def takes_any(graph: Any, free: Mapping[int, str]) -> bool:
    """Whether the lone input of an ONNX model has no fixed size along these axes; exporters fix them in silence."""
    sides = graph.graph.input[0].type.tensor_type.shape.dim
    return all(not sides[axis].HasField("dim_value") for axis in free)


def write_onnx(
    model: nn.Module, example: Any, path: Path, free: Mapping[int, str] | None = None, *, trace: bool = True
) -> str:
    """Export a model to an ONNX file; its input size is that of the example.

    Parameters
    ----------
    model
        In evaluation mode.
    example
        Tensor, or tuple of the model's arguments.
    path
        Is overwritten.
    free
        Axes of a lone tensor along which the file takes any number, and what is counted there.
    trace
        Whether what torch.export refuses is traced. What its code decides from values is then fixed, so that it must be
        known to decide nothing about its input.

    Returns
    -------
    str
        Why the model was traced; empty where torch.export took it.

    Raises
    ------
    FewerError
        When a package is missing, the model is too large, or its code cannot be exported.
    """
    lacking = missing("onnxruntime")
    if lacking is not None and "onnxruntime is" not in lacking:
        raise FewerError(f"exporting to ONNX: {lacking}")
    if sum(p.numel() * p.element_size() for p in model.parameters()) > _MOST_BYTES:
        raise FewerError("models above 1.8 GB do not fit into one ONNX file; export to torch instead")
    arguments = example if isinstance(example, tuple) else (example,)
    with attributes_kept(model):  # what a call leaves in the model would be tensors without numbers
        return _write_exported(model, arguments, path, free or {}, trace=trace)


def _write_exported(
    model: nn.Module, arguments: tuple[Any, ...], path: Path, free: Mapping[int, str], *, trace: bool
) -> str:
    """Write the file; why the model was traced."""
    try:
        with quiet(), torch.no_grad():
            model = flattened(model, arguments)
            shapes = free_shapes(free)
            torch.onnx.export(
                model, arguments, path, dynamo=True, external_data=False, verbose=False, optimize=True, **shapes
            )
    except OSError:
        raise
    except Exception as error:
        refusal = FewerError(f"this model cannot be exported to ONNX: {first_line(error)}")
        if free or not trace:  # a trace has one length only
            raise refusal from error
        try:
            _write_traced(model, arguments, path)
        except OSError:
            raise
        except Exception:
            raise refusal from error
        return first_line(error)
    return ""


def _write_traced(model: nn.Module, arguments: tuple[Any, ...], path: Path) -> None:
    """Export by tracing: for code that asks for values of tensors, which torch.export refuses.

    What such code decides becomes a constant. Models whose answer depends on a decision about their input are refused
    before anything is exported (:mod:`fewer.engine.model_checks`), and every file is compared with the model.
    """
    import onnx
    from onnxscript import optimizer

    with quiet(), torch.no_grad():
        # folded normalisations would take the names of the weights with them; the optimizer below keeps these
        torch.onnx.export(
            model,
            arguments,
            path,
            dynamo=False,
            verbose=False,
            opset_version=18,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
        graph = onnx.load(path)
        _turn_weights(graph)
        onnx.save(optimizer.optimize(graph), path)


def _turn_weights(model: Any) -> None:
    """Store weights that are transposed in the graph as they are used, under their own names."""
    from onnx import numpy_helper

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    # answers of the graph, and what its branches and loops read from outside, keep their names and layouts
    needed = {value.name for value in graph.output} | {name for node in graph.node for name in _read_inside(node)}
    kept = []
    for node in graph.node:
        tensor = stored.get(node.input[0]) if node.op_type == "Transpose" else None
        if tensor is None or readers[tensor.name] > 1 or {tensor.name, node.output[0]} & needed:
            kept.append(node)
            continue
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).transpose(order).copy(), name))
        for other in graph.node:
            other.input[:] = [name if read == node.output[0] else read for read in other.input]
    del graph.node[:]
    graph.node.extend(kept)


def _read_inside(node: Any) -> Iterator[str]:
    """Names of the tensors that the graphs within a node read."""
    for attribute in node.attribute:
        for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from inner.input
                yield from _read_inside(inner)


def to_onnx(model: nn.Module, example: Any, free: Mapping[int, str] | None = None) -> Any:
    """The ``onnx.ModelProto`` of a model, weights inside; see :func:`write_onnx`."""
    with tempfile.TemporaryDirectory(prefix="fewer-onnx-") as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(model, example, path, free)
        import onnx

        return onnx.load(path)


def first_line(error: Exception) -> str:
    """What an exception says, shortened.

    Examples
    --------
    >>> first_line(ValueError("a\\nb"))
    'a'
    """
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep an exporter's chatter off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
