"""A network as stages: each is an affine function of the image and of activations before it, then an activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.private.matrices import identity, matrix_of, sparse_product
from fewer.private.network import Call, Network, Value, places_of
from fewer.private.polynomial import Line, Squares

__all__ = ["IMAGE", "Affine", "Stage", "stages_of"]

IMAGE = -1
"""What stands for the image among the sources of a stage."""

_WEIGHTED = ("conv", "linear", "matmul", "mm", "addmm")


@dataclass(frozen=True, eq=False)
class Affine:
    """A value as the sum of matrices times sources, and a constant.

    Attributes
    ----------
    terms
        Source to a sparse matrix [numbers, numbers of the source]; None is the source itself.
    constant
        One for each number.
    shape
        With the leading 1.
    spacing
        How many pixels of the image lie between two neighbours, down and across; None where they are no pixels any
        more.
    name
        Of the last layer with weights.
    """

    terms: Mapping[int, Tensor | None]
    constant: Tensor
    shape: tuple[int, ...]
    spacing: tuple[float, float] | None = None
    name: str = ""


@dataclass(frozen=True, eq=False)
class Stage:
    """An affine function, and the polynomial of each of its numbers.

    Attributes
    ----------
    affine
        Of the image and of earlier stages.
    squares
        None where the stage gives the results.
    name
        Of the layer.
    activation
        Name of the activation.
    key
        Of the activation in the network.
    """

    affine: Affine
    squares: Squares | None
    name: str
    activation: str = ""
    key: str = ""

    @property
    def sources(self) -> list[int]:
        """Of its affine function, in order."""
        return sorted(self.affine.terms)


def stages_of(network: Network) -> list[Stage]:
    """The stages of a network whose activations are polynomials.

    Linear operations between two activations become one matrix, and so do those around an activation that was made a
    straight line.

    Examples
    --------
    >>> from torch import nn
    >>> from fewer.private.compile import approximate_activations
    >>> from fewer.private.reading import read_network
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    >>> images = torch.randn(9, 1, 2, 2)
    >>> [stage.name for stage in stages_of(approximate_activations(read_network(net, images[:1]), images))]
    ['1', '3']
    """
    shape = (1, *network.shape)
    start = torch.zeros(int(torch.Size(shape).numel()), dtype=torch.float64)
    values: dict[str, Any] = {
        network.entry: Affine({IMAGE: None}, start, shape, (1.0, 1.0) if len(shape) == 4 else None)
    }
    stages: list[Stage] = []
    for call in network.calls:
        if call.kind != "activation":
            values[call.key] = _linear(call, values, network)
            continue
        x, made = values[call.args[0].key], network.activations[call.key]
        if isinstance(made, Line):
            values[call.key] = replace(_scaled(x, made.slope), constant=x.constant * made.slope + made.rise)
            continue
        if not isinstance(made, Squares):
            raise FewerError(f"{call.name!r} is no polynomial yet; fit it first")
        stages.append(Stage(x, made, x.name or call.name, call.name, call.key))
        nothing = torch.zeros_like(x.constant)
        values[call.key] = Affine({len(stages) - 1: None}, nothing, x.shape, x.spacing, "")
    # behind an activation at the end stands a stage that only gives it its sign and its constant
    last = values[network.result]
    return [*stages, Stage(last, None, last.name or "results")]


def _scaled(x: Affine, factor: float) -> Affine:
    terms = {s: (identity(len(x.constant)) if m is None else m) * factor for s, m in x.terms.items()}
    return replace(x, terms=terms)


def _linear(call: Call, values: Mapping[str, Any], network: Network) -> Any:
    """What a linear operation makes of the values that it reads."""
    read = [values[v.key] for v in places_of(call.args, Value)]
    if call.kind == "getitem" and isinstance(read[0], tuple):
        return read[0][call.args[1]]
    shapes = {v.key: values[v.key].shape for v in places_of(call.args, Value)}
    made = matrix_of(call, shapes, network.tensors)
    if isinstance(made, list):
        return tuple(_combined(call, matrices, read, shift, shape) for matrices, shift, shape in made)
    return _combined(call, *made[:1], read, *made[1:])


def _combined(
    call: Call, matrices: list[Tensor | None], read: list[Affine], shift: Tensor | None, shape: tuple[int, ...]
) -> Affine:
    terms: dict[int, Tensor | None] = {}
    constant = torch.zeros(int(torch.Size(shape).numel()), dtype=torch.float64)
    for matrix, x in zip(matrices, read, strict=True):
        constant = constant + (x.constant if matrix is None else torch.mv(matrix, x.constant))
        for source, inner in x.terms.items():
            both = inner if matrix is None else matrix if inner is None else sparse_product(matrix, inner)
            if source in terms:
                one = terms[source]
                one, both = (identity(len(constant)) if m is None else m for m in (one, both))
                both = one + both
            terms[source] = both.coalesce() if both is not None else None
    if shift is not None:
        constant = constant + shift
    named = any(call.kind.startswith(w) for w in _WEIGHTED)
    name = call.name if named else next((x.name for x in reversed(read) if x.name), "")
    return Affine(terms, constant, shape, _spacing(call, read, shape), name)


def _spacing(call: Call, read: list[Affine], shape: tuple[int, ...]) -> tuple[float, float] | None:
    """How far apart neighbours are in the image."""
    first = next((x for x in read if x.spacing is not None), None)
    if len(shape) != 4 or first is None or first.spacing is None:
        return None
    if call.kind.startswith(("conv", "avg_pool", "adaptive", "upsample", "mean")):
        return _after(call, first.spacing, first.shape, shape)
    same = shape[2:] == first.shape[2:] or call.kind in ("constant_pad_nd", "pad", "slice", "narrow")
    return first.spacing if same else None


def _after(
    call: Call, spacing: tuple[float, float], before: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[float, float]:
    if call.kind in ("conv2d", "avg_pool2d"):
        at = 3 if call.kind == "conv2d" else 2
        given = call.args[at] if len(call.args) > at and call.args[at] else call.args[1] if at == 2 else 1
        down, across = given if isinstance(given, (list, tuple)) and len(given) == 2 else (_one(given), _one(given))
        return spacing[0] * down, spacing[1] * across
    # others keep the extent of the image
    return tuple(
        s * max(1.0, b / n) if b >= n else s * b / n for s, b, n in zip(spacing, before[2:], shape[2:], strict=True)
    )  # type: ignore[return-value]


def _one(value: Any) -> int:
    return int(value[0]) if isinstance(value, (list, tuple)) else int(value)
