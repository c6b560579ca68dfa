"""ONNX files of integer networks: the arithmetic is recorded while it runs, and holds integer operators only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fewer.approximate.transformer import IntegerTransformer, run
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes

__all__ = ["Graph", "Node", "export_onnx"]

_OFFSET = 61  # numbers stay below 2 ** 61, so that adding it makes a floor of ONNX's division, which cuts towards zero


class Graph:
    """ONNX nodes and constants in the order in which arithmetic on :class:`Node` makes them."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.values: list[Any] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """One node; the name of its output."""
        from onnx import helper

        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{op}_{len(self.nodes)}", **attributes))
        return name

    def constant(self, array: Any, kind: type = np.int64) -> str:
        """A constant; equal ones are stored once."""
        from onnx import numpy_helper

        array = np.array(array, dtype=kind, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = f"c{len(self.constants)}"
            self.values.append(numpy_helper.from_array(array, self.constants[key]))
        return self.constants[key]


class Node:
    """What stands for an int64 array while a graph is recorded; has the operations of ``arithmetic.py``."""

    __array_ufunc__ = None  # an array on the left leaves the operation to us

    def __init__(self, graph: Graph, name: str, shape: tuple[int, ...]) -> None:
        self.graph, self.name, self.shape = graph, name, shape

    def _new(self, op: str, shape: tuple[int, ...], *inputs: str, **attributes: Any) -> Node:
        return Node(self.graph, self.graph.add(op, *inputs, **attributes), shape)

    def _of(self, other: Any) -> tuple[str, tuple[int, ...]]:
        if isinstance(other, Node):
            return other.name, other.shape
        return self.graph.constant(other), np.shape(other)

    def _binary(self, op: str, other: Any, swap: bool = False) -> Node:
        name, shape = self._of(other)
        both = (name, self.name) if swap else (self.name, name)
        return self._new(op, np.broadcast_shapes(self.shape, shape), *both)

    def __add__(self, other: Any) -> Node:
        return self._binary("Add", other)

    def __radd__(self, other: Any) -> Node:
        return self._binary("Add", other, swap=True)

    def __sub__(self, other: Any) -> Node:
        return self._binary("Sub", other)

    def __rsub__(self, other: Any) -> Node:
        return self._binary("Sub", other, swap=True)

    def __mul__(self, other: Any) -> Node:
        return self._binary("Mul", other)

    def __rmul__(self, other: Any) -> Node:
        return self._binary("Mul", other, swap=True)

    def __lshift__(self, bits: int) -> Node:
        return self * (1 << bits)

    def __rshift__(self, bits: Any) -> Node:
        if isinstance(bits, Node):  # only numbers that are not negative are shifted by other numbers
            return self._binary("Div", bits.clip(0, 62).take(2 ** np.arange(63)))
        if bits == 0:
            return self
        return (self + (1 << _OFFSET))._binary("Div", 1 << bits) - (1 << (_OFFSET - bits))

    def __floordiv__(self, other: Any) -> Node:
        quotient = self._binary("Div", other)
        rest = self - quotient * other
        return quotient - rest._is_negative()

    def __rfloordiv__(self, other: Any) -> Node:
        raise FewerError("a constant divided by a node has no use here; divide a node")

    def _is_negative(self) -> Node:
        from onnx import TensorProto

        test = self.graph.add("Less", self.name, self.graph.constant(0))
        return self._new("Cast", self.shape, test, to=TensorProto.INT64)

    def reaches(self, threshold: int) -> Node:
        """1 where ``x >= threshold``, else 0."""
        return 1 - (self - threshold)._is_negative()

    def choose(self, negative: Node, other: Node) -> Node:
        """``negative`` where ``x < 0``."""
        test = self.graph.add("Less", self.name, self.graph.constant(0))
        a, b = self._of(negative), self._of(other)
        return self._new("Where", np.broadcast_shapes(self.shape, a[1], b[1]), test, a[0], b[0])

    def clip(self, low: int, high: int) -> Node:
        return self._new("Clip", self.shape, self.name, self.graph.constant(low), self.graph.constant(high))

    def take(self, table: np.ndarray) -> Node:
        return self._new("Gather", self.shape, self.graph.constant(table), self.name, axis=0)

    def max(self, axis: int, keepdims: bool) -> Node:
        axes = self.graph.constant([axis])
        return self._new("ReduceMax", (*self.shape[:-1], 1), self.name, axes, keepdims=1)

    def sum(self, axis: int, keepdims: bool) -> Node:
        axes = self.graph.constant([axis])
        return self._new("ReduceSum", (*self.shape[:-1], 1), self.name, axes, keepdims=1)

    def reshape(self, *shape: int) -> Node:
        return self._new("Reshape", shape, self.name, self.graph.constant(shape))

    def transpose(self, *axes: int) -> Node:
        return self._new("Transpose", tuple(self.shape[a] for a in axes), self.name, perm=list(axes))

    def __getitem__(self, index: int) -> Node:
        return self._new("Gather", self.shape[1:], self.name, self.graph.constant(index), axis=0)

    def after(self, token: np.ndarray) -> Node:
        """With a constant row before the others of axis 1."""
        row = self.graph.constant(np.broadcast_to(token, (self.shape[0], 1, self.shape[2])))
        return self._new("Concat", (self.shape[0], self.shape[1] + 1, self.shape[2]), row, self.name, axis=1)

    def product(self, other: Any) -> Node:
        """``MatMulInteger`` of bytes: both signed, or both 0 .. 255 with the right side moved by 128.

        A product of unsigned by signed bytes is left out: processors without VNNI add pairs of those in 16 bits, which
        are then too few, and onnxruntime's result is no longer exact.
        """
        from onnx import TensorProto

        kind = TensorProto.UINT8 if self.unsigned else TensorProto.INT8
        left = self.graph.add("Cast", self.name, to=kind)
        shape = other.shape if isinstance(other, Node) else np.shape(other)
        move = 128 if self.unsigned else 0
        if isinstance(other, Node):
            right = self.graph.add("Cast", (other + move).name, to=kind)
        else:
            right = self.graph.constant(np.asarray(other, dtype=int) + move, np.uint8 if move else np.int8)
        zeros = [self.graph.constant(0, np.uint8), self.graph.constant(move, np.uint8)] if move else []
        done = self.graph.add("MatMulInteger", left, right, *zeros)
        return self._new("Cast", (*self.shape[:-1], shape[-1]), done, to=TensorProto.INT64)

    unsigned = False

    def as_unsigned(self) -> Node:
        """The same numbers, known to be 0 .. 255."""
        same = Node(self.graph, self.name, self.shape)
        same.unsigned = True
        return same


def export_onnx(net: IntegerTransformer, path: str | Path, *, side: int, batch: int = 1) -> Path:
    """Write a network whose operators all work on integers; onnxruntime gives the same integers as :func:`run`.

    Parameters
    ----------
    net
        Constants.
    path
        The file.
    side
        Of the images in pixels.
    batch
        Images at once, fixed in the file.

    Returns
    -------
    Path
        Input ``pixels`` uint8 [batch, 3, side, side]; output ``tokens`` int64, to be multiplied by the scale in the
        file's metadata.

    Raises
    ------
    FewerError
        When ``onnx`` is not installed, and for another size than the network's.
    """
    try:
        from onnx import TensorProto, checker, helper
    except ImportError:
        raise FewerError('writing ONNX needs onnx; run: pip install "fewer[deploy]"') from None
    if side != net.side:
        raise FewerError(f"this network takes images of {net.side} pixels, for which its positions are; got {side}")
    graph = Graph()
    pixels = Node(graph, graph.add("Cast", "pixels", to=TensorProto.INT64), (batch, 3, side, side))
    tokens = run(net, pixels)
    graph.nodes.append(helper.make_node("Identity", [tokens.name], ["tokens"]))
    made = helper.make_graph(
        graph.nodes,
        "integer-transformer",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [batch, 3, side, side])],
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, list(tokens.shape))],
        graph.values,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    entry = model.metadata_props.add()
    entry.key, entry.value = "scale", repr(net.scale)
    checker.check_model(model)
    return atomic_write_bytes(path, model.SerializeToString())
