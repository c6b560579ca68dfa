"""A model exported once, from which the file of any choice of precisions is made without exporting again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.models.running import copied
from fewer.quantize.qdq import InputRange
from fewer.runtimes.export import takes_any, to_onnx
from fewer.runtimes.graph import REST, layer_nodes, weighted_nodes
from fewer.runtimes.integers import rounded_tensors, with_int8
from fewer.runtimes.ranges import tensor_ranges
from fewer.runtimes.structure import describe

__all__ = ["PlannedGraph", "arrays_of"]

_TIMED = 4  # images for the ranges of a file that is made for its time alone


def arrays_of(example: Tensor | Sequence[Tensor]) -> list[np.ndarray]:
    """Tensors as a runtime takes them.

    Examples
    --------
    >>> arrays_of(torch.zeros(1, 2))[0].shape
    (1, 2)
    """
    tensors = [example] if isinstance(example, Tensor) else list(example)
    return [t.detach().cpu().contiguous().numpy() for t in tensors]


def _exported(model: nn.Module, example: Any, free: Mapping[int, str]) -> tuple[Any, Mapping[int, str]]:
    """The ONNX model, and along which axes it takes any number."""
    if free:
        with contextlib.suppress(FewerError):
            graph = to_onnx(model, example, free)
            if takes_any(graph, free):
                return graph, free
    return to_onnx(model, example), {}


@dataclass(eq=False)
class PlannedGraph:
    """An exported model and where its layers are.

    Attributes
    ----------
    model : onnx.ModelProto
        In fp32.
    layers
        Layer name -> names of its nodes; under :data:`fewer.runtimes.graph.REST` those of no layer.
    structure
        Of the answer.
    shapes
        Of the inputs.
    ranges
        Of tensors, as far as they were asked for.
    images
        Inputs from which the ranges of a file for timing are found. Time depends on them: a runtime drops an
        activation that cuts off what the bytes cannot hold anyway, and corrects products for a zero that is not byte 0.
    free
        Axes of the input along which any number is taken.
    """

    model: Any
    layers: dict[str, list[str]]
    structure: Any
    shapes: list[tuple[int, ...]]
    ranges: dict[str, InputRange] = field(default_factory=dict)
    free: tuple[int, ...] = ()
    images: Tensor | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        layers: Mapping[str, Iterable[str]],
        example: Any,
        free: Mapping[int, str] | None = None,
        images: Tensor | None = None,
    ) -> PlannedGraph:
        """Export a model.

        Parameters
        ----------
        model
            In evaluation mode.
        layers
            Layer name -> all names of modules that hold its weight.
        example
            Tensor or tuple of the model's arguments.
        free
            Axes of a lone tensor along which any number shall be taken, and what is counted there. Where the model
            cannot be written so, the file takes the number of the example.
        images
            For :attr:`images`, of which the first few are kept; by default the example.

        Raises
        ------
        FewerError
            When it cannot be exported, or its answer cannot be written down.
        """
        arguments = example if isinstance(example, tuple) else (example,)
        with torch.no_grad():
            structure, tensors = describe(model(*copied(arguments)))  # a model may write into its input
        graph, free = _exported(model, example, free or {})
        if len(graph.graph.output) != len(tensors):
            raise FewerError(
                f"the exported model gives {len(graph.graph.output)} tensors, the model itself {len(tensors)}"
            )
        if len(graph.graph.input) != len(arguments):
            raise FewerError("the exported model takes another number of inputs than the model itself")
        found = {name: [node.name for node in nodes] for name, nodes in layer_nodes(graph, layers).items()}
        if images is None and isinstance(arguments[0], Tensor):
            images = arguments[0]
        images = None if images is None else images[:_TIMED]
        shapes = [tuple(x.shape) for x in arguments]
        return cls(graph, found, structure, shapes, free=tuple(free), images=images)

    def int8_nodes(self, precisions: Mapping[str, str]) -> list[str]:
        """The nodes that multiply integers under a plan.

        Products that belong to no layer follow the majority of the weights.
        """
        chosen = [name for name, p in precisions.items() if p == "int8"]
        nodes = [node for name in chosen for node in self.layers.get(name, [])]
        if sum(map(self.weights, chosen)) > 0.5 * sum(self.weights(n) for n in self.layers if n != REST):
            nodes += self.layers.get(REST, [])
        return nodes

    def weights(self, layer: str) -> int:
        """Number of weights of a layer, counted once for each of its nodes."""
        sizes = {t.name: int(np.prod(t.dims)) for t in self.model.graph.initializer}
        nodes = {node.name: node for node in weighted_nodes(self.model)}
        return sum(sizes[nodes[name].input[1]] for name in self.layers.get(layer, []))

    def file(self, runtime: str, precisions: Mapping[str, str], ranges: Mapping[str, InputRange] | None = None) -> Any:
        """The ONNX model of a plan; without ``ranges`` those of a few images are taken, good enough for its time.

        Parameters
        ----------
        runtime
            ``onnxruntime`` rounds the results of integer convolutions, too.
        precisions
            Of the layers; those that are missing stay as they are.
        ranges
            Of all tensors of :meth:`tensors`.
        """
        nodes = self.int8_nodes(precisions)
        if not nodes:
            return self.model
        outputs = runtime == "onnxruntime"
        if ranges is None:
            assert self.images is not None  # a graph with integers has a tensor as its input
            ranges = self.find_ranges(runtime, precisions, self.images, 1)
        return with_int8(self.model, nodes, ranges, outputs=outputs)

    def tensors(self, runtime: str, precisions: Mapping[str, str]) -> list[str]:
        """Names of the tensors that are rounded to bytes under a plan."""
        wanted = set(self.int8_nodes(precisions))
        nodes = [node for node in weighted_nodes(self.model) if node.name in wanted]
        return rounded_tensors(self.model, nodes, runtime == "onnxruntime")

    def find_ranges(
        self, runtime: str, precisions: Mapping[str, str], images: Tensor, threads: int
    ) -> dict[str, InputRange]:
        """Ranges of :meth:`tensors` on calibration images; what is known already is not sought again."""
        names = [name for name in self.tensors(runtime, precisions) if name not in self.ranges]
        if names:
            batch = self.shapes[0][0]
            if not self.free and tuple(images.shape[1:]) != self.shapes[0][1:]:
                raise FewerError(
                    f"the file takes inputs of {list(self.shapes[0][1:])}, and those that shall give the ranges of its "
                    f"activations have {list(images.shape[1:])}"
                )
            parts = [part for part in images.split(batch) if len(part) == batch]
            if not parts:
                parts = [images.repeat(-(-batch // len(images)), *[1] * (images.ndim - 1))[:batch]]
            arrays = [part.float().contiguous().numpy() for part in parts]
            self.ranges |= tensor_ranges(self.model, names, arrays, runtime, threads)
        return self.ranges
