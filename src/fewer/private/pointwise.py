"""Functions of each number that a network writes out, such as ``x * sigmoid(x)``, put together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewer.private.network import Held, Value

__all__ = ["Point", "Points"]

_SUMS = frozenset(("add", "sub", "rsub", "mul", "div", "neg"))
_CHOICES = frozenset(("where", "maximum", "minimum"))
_COMPARED = ("gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not")
_TESTS = frozenset((*_COMPARED, "zeros_like", "ones_like", "full_like"))
"""What has no place in a circuit by itself, and may be a part of a function of each number."""


@dataclass(frozen=True, eq=False)
class Point:
    """A value that is a function of each number of another one.

    Attributes
    ----------
    root
        The other one.
    function
        Of its numbers.
    bent
        Whether it is more than a factor and a constant.
    """

    root: Value
    function: Callable[[Tensor], Any]
    bent: bool


@dataclass
class Points:
    """Which values of a graph are functions of each number of an earlier one.

    Attributes
    ----------
    activations
        Names of functions of each number.
    tensors
        Of the network, by key.
    shapes
        Of values, by key.
    known
        By key.
    hidden
        Values that stand in no circuit by themselves, and what computes them.
    """

    activations: frozenset[str]
    tensors: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    known: dict[str, Point] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)

    def read(
        self, key: str, kind: str, target: Any, args: tuple[Any, ...], named: Mapping[str, Any], shape: tuple[int, ...]
    ) -> Point | None:
        """Note one operation; what it is as one function of an earlier value, where it has to be one.

        None for what is linear, for a function of each number behind linear operations, and for everything else.
        """
        self.shapes[key] = shape
        if kind not in _SUMS | _CHOICES | _TESTS | self.activations:
            return None
        given = [self._given(a, shape) for a in args]
        points = [p for p in given if isinstance(p, Point)]
        if not points or any(p is _NONE for p in given) or any(isinstance(v, (Value, Held)) for v in named.values()):
            return None
        root = points[0].root
        if any(p.root != root for p in points) or self.shapes[root.key] != shape:
            return None

        def function(x: Tensor) -> Any:
            return target(*[p.function(x) if isinstance(p, Point) else p for p in given], **named)

        product = len(points) > 1 and kind in ("mul", "div")
        before = any(p.bent for p in points)
        bent = before or product or kind not in _SUMS
        self.known[key] = made = Point(root, function, bent)
        if kind in _TESTS:
            self.hidden[key] = kind
            return made
        return made if product or kind in _CHOICES or (kind in self.activations and before) else None

    def _given(self, a: Any, shape: tuple[int, ...]) -> Any:
        """An argument: a point, a plain number, or :data:`_NONE` where it is neither."""
        if isinstance(a, Value):
            found = self.known.get(a.key) or Point(a, lambda x: x, False)
            return found if self.shapes.get(a.key) == shape else _NONE
        if isinstance(a, Held):
            tensor = self.tensors[a.key]
            return tensor.detach().reshape(()) if tensor.numel() == 1 else _NONE  # some operations take no plain number
        return _NONE if isinstance(a, (list, tuple, torch.fx.Node)) else a


_NONE = object()
