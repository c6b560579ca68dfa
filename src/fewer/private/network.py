"""What a trained network does with an image: linear operations and activations, which a circuit can be made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fewer.private.polynomial import Line, Squares

__all__ = ["Call", "Held", "Network", "Polynomial", "Value"]

Polynomial = Squares | Line

_PART = 250
"""Images that are run at once."""


@dataclass(frozen=True)
class Value:
    """A place for a number that depends on the image: what a call gave."""

    key: str


@dataclass(frozen=True)
class Held:
    """A place for a tensor of the network."""

    key: str


@dataclass(frozen=True, eq=False)
class Call:
    """One operation on what depends on the image.

    Attributes
    ----------
    key
        Of the result.
    name
        Of the module that calls it, or of the operation where no module does.
    kind
        Of the operation, such as ``conv2d``; ``activation`` for a function of each number.
    target
        What is called.
    args
        With :class:`Value` and :class:`Held` in the places of tensors.
    shape
        Of the result for one image, with the leading 1.
    """

    key: str
    name: str
    kind: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Network:
    """A network as calls in order, and its numbers in double precision.

    Attributes
    ----------
    calls
        In order. Those of the kind ``activation`` call what ``activations`` holds for them.
    tensors
        By key.
    activations
        Functions of each number by key: those of the network, and polynomials once they are fitted.
    entry, result
        Keys of the image and of the results.
    shape
        Of one image.
    averaged
        Names of maximum pooling that was made an average: another network near the first one.
    left
        Operations at the end, such as a softmax, that are left to whoever reads the results, the last one first: name
        and axis, see :mod:`fewer.private.left`.
    functions
        The activations as the network came with them.
    """

    calls: tuple[Call, ...]
    tensors: Mapping[str, Tensor]
    activations: Mapping[str, Callable[[Tensor], Tensor]]
    entry: str
    result: str
    shape: tuple[int, ...]
    averaged: tuple[str, ...] = ()
    left: tuple[tuple[str, int], ...] = ()
    functions: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    def __call__(self, images: Tensor) -> Tensor:
        """Results [N, outputs] of images [N, ...], in double precision and in parts."""
        return self._in_parts(images, self.result)

    def inputs_of(self, key: str, images: Tensor) -> Tensor:
        """What goes into one activation."""
        call = next(c for c in self.calls if c.key == key)
        return self._in_parts(images, call.args[0].key)

    def _in_parts(self, images: Tensor, wanted: str) -> Tensor:
        with torch.no_grad():
            parts = [self.run(part.double(), self.tensors, self.activations, wanted) for part in images.split(_PART)]
        return torch.cat(parts)

    def run(
        self,
        images: Tensor,
        tensors: Mapping[str, Tensor],
        activations: Mapping[str, Callable[[Tensor], Tensor]],
        wanted: str | None = None,
    ) -> Tensor:
        """With other numbers and functions, in the precision of the images; gradients pass through.

        Each image goes through by itself, with the leading 1 that the network was read with.
        """
        key = wanted or self.result

        def one(image: Tensor) -> Tensor:
            values: dict[str, Any] = {self.entry: image.unsqueeze(0)}
            for call in self.calls:
                if key in values:
                    break
                if call.kind == "activation":
                    values[call.key] = activations[call.key](values[call.args[0].key])
                else:
                    values[call.key] = call.target(*filled(call.args, values, tensors))
            return values[key].flatten() if wanted is None or wanted == self.result else values[key]

        return torch.func.vmap(one)(images)

    @property
    def answer(self) -> tuple[int, ...]:
        """Shape of the results for one image, with the leading 1."""
        return next(call.shape for call in self.calls if call.key == self.result)

    def with_activations(self, new: Mapping[str, Callable[[Tensor], Tensor]]) -> Network:
        """With other functions for some activations."""
        return replace(self, activations={**self.activations, **new})

    def order(self) -> list[str]:
        """Keys of the activations in the order in which they run."""
        return [call.key for call in self.calls if call.kind == "activation"]

    def name_of(self, key: str) -> str:
        """Name of the module of a call."""
        return next(call.name for call in self.calls if call.key == key)


def filled(args: Any, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Arguments with tensors in the places of :class:`Value` and :class:`Held`."""
    if isinstance(args, Value):
        return values[args.key]
    if isinstance(args, Held):
        return tensors[args.key]
    if isinstance(args, (list, tuple)):
        return type(args)(filled(a, values, tensors) for a in args)
    return args


def places_of(args: Any, kind: type | tuple[type, ...]) -> list[Any]:
    """Every :class:`Value`, or every :class:`Held`, in arguments."""
    if isinstance(args, kind):
        return [args]
    if isinstance(args, (list, tuple)):
        return [one for a in args for one in places_of(a, kind)]
    return []
