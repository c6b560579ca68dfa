"""Fewer levels: activations that go, and the linear layers around them made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from fewer.private.network import Convolution, Dense, run_chain
from fewer.private.polynomial import Squares

__all__ = ["Shallow", "leave_out", "shallower"]

_LARGEST = 8192
"""Inputs of a convolution that is made one with the linear layer behind it."""


@dataclass(frozen=True, eq=False)
class Shallow:
    """A chain without some activations.

    Attributes
    ----------
    gone
        Names of the activations that went.
    chain, names
        What is left.
    distortion
        Relative squared change of the outputs on the images.
    """

    gone: tuple[str, ...]
    chain: list[Convolution | Dense | Squares]
    names: list[str]
    distortion: float


def leave_out(
    chain: Sequence[Convolution | Dense | Squares], names: Sequence[str], images: Tensor, gone: Iterable[int]
) -> tuple[list[Convolution | Dense | Squares], list[str]] | None:
    """A chain without the activations at some places; None where two convolutions would have to become one.

    An activation becomes the straight line that is nearest to it on what the images make of its inputs; then the layers
    around it are one linear layer.

    Examples
    --------
    >>> one = Dense("a", torch.eye(2).double(), torch.zeros(2).double())
    >>> square = Squares((0.0,), 1.0, 0.0, -1, 1)
    >>> chain, names = leave_out([one, square, one], ["a", "b", "c"], torch.randn(9, 2), [1])
    >>> [type(layer).__name__ for layer in chain], names
    (['Dense'], ['a+c'])
    """
    where, x = set(gone), images.double()
    found: list[Convolution | Dense | Squares] = []
    kept: list[str] = []
    entered = x.shape[1:]  # of what the last linear layer reads
    waiting: tuple[Convolution | Dense, Tensor, Tensor] | None = None
    for i, (layer, name) in enumerate(zip(chain, names, strict=True)):
        if i in where:
            before = found[-1]
            assert isinstance(layer, Squares) and not isinstance(before, Squares)
            y = torch.from_numpy(layer(x.numpy()))
            slope = ((x - x.mean()) * (y - y.mean())).mean() / x.var(unbiased=False)
            rise = y.mean() - slope * x.mean()
            waiting, x = (before, slope, rise), slope * x + rise
            continue
        if waiting is not None:
            assert not isinstance(layer, Squares)
            one = _one(*waiting, layer, entered)
            if one is None:
                return None
            found[-1], kept[-1], waiting = one, f"{kept[-1]}+{name}", None
        else:
            found.append(layer)
            kept.append(name)
            entered = entered if isinstance(layer, Squares) else x.shape[1:]
        x = torch.from_numpy(layer(x.numpy())) if isinstance(layer, Squares) else layer(x)
    return None if waiting is not None else (found, kept)


def _one(
    before: Convolution | Dense, slope: Tensor, rise: Tensor, after: Convolution | Dense, shape: torch.Size
) -> Dense | None:
    """``after(slope * before(x) + rise)`` as one layer; ``shape`` is that of ``x``."""
    if not isinstance(after, Dense):
        return None
    steep = after.weight * slope
    constant = after.bias + after.weight.sum(1) * rise
    if isinstance(before, Dense):
        return Dense(after.name, steep @ before.weight, constant + steep @ before.bias)
    count = int(shape.numel())
    if count > _LARGEST:
        return None
    blank = torch.zeros(1, *shape, dtype=torch.float64)
    rest = before(blank).flatten(1)
    parts = []
    for rows in torch.arange(count).split(512):
        basis = torch.zeros(len(rows), count, dtype=torch.float64)
        basis[torch.arange(len(rows)), rows] = 1
        parts.append((before(basis.reshape(-1, *shape)).flatten(1) - rest) @ steep.t())
    return Dense(after.name, torch.cat(parts).t().contiguous(), constant + steep @ rest[0])


def shallower(
    chain: Sequence[Convolution | Dense | Squares], names: Sequence[str], images: Tensor, most: int = 2
) -> list[Shallow]:
    """Every way to leave out up to ``most`` activations, the least distortion first.

    Examples
    --------
    >>> one = Dense("a", torch.eye(2).double(), torch.zeros(2).double())
    >>> square = Squares((0.0,), 1.0, 0.0, -1, 1)
    >>> [s.gone for s in shallower([one, square, one], ["a", "b", "c"], torch.randn(9, 2))]
    [('b',)]
    """
    wanted = run_chain(chain, images.double())
    places = [i for i, layer in enumerate(chain) if isinstance(layer, Squares)]
    found = []
    for count in range(1, min(most, len(places)) + 1):
        for gone in combinations(places, count):
            made = leave_out(chain, names, images, gone)
            if made is not None:
                error = float(((run_chain(made[0], images.double()) - wanted) ** 2).sum() / (wanted**2).sum())
                found.append(Shallow(tuple(names[i] for i in gone), *made, error))
    return sorted(found, key=lambda one: one.distortion)
