"""Shrink: from a model whose removed channels are masked to one that does not have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.kernels.copies import copied_module
from fewer.models.coupling import Couplings
from fewer.models.coupling_search import difference, tolerance
from fewer.models.running import Forward, call, evaluating, numbers_of
from fewer.models.surgery import Link, Removal, operate, remove

__all__ = ["Shrunk", "random_cut", "rows_follow", "shrink"]


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A model that is really smaller.

    Attributes
    ----------
    model
        The model; the very one that was given when nothing was removed.
    masks
        Of every unit, in the shape that its weight has now.
    removals
        What was cut, in order.
    refused
        For each consumer that stays masked, why.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    removals: tuple[Removal, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


def rows_follow(
    model: nn.Module, masks: dict[str, Tensor], couplings: Couplings, chosen: Mapping[str, Option]
) -> dict[str, Tensor]:
    """Masks in which the producers lose the rows whose columns their consumer has lost, and other readers the columns.

    The weights behind them become zero.

    Parameters
    ----------
    model
        Compressed and repaired; changed in place.
    masks
        Of every unit, as a matrix or in the weight's shape.
    couplings
        Of the original model.
    chosen
        Option of each unit.

    Raises
    ------
    FewerError
        When an option removes columns of a layer that is part of no link.
    """
    found = dict(masks)
    for name, option in chosen.items():
        if option.removes is None:
            continue
        link = couplings.of(name)
        if link is None:
            raise FewerError(f"{name!r} has no channels that can be removed in this model; sense it again")
        if option.removes != "columns":
            continue
        alive = torch.zeros(link.count, link.size, dtype=torch.bool)
        alive[list(_kept(masks[name], link))] = True
        for producer in link.producers:
            weight: Any = model.get_submodule(producer).weight
            start, length = link.part_of(producer)
            rows = alive.flatten()[start : start + length].repeat(weight.shape[0] // length).to(weight.device)
            mask = masks[producer] & rows.view(-1, *[1] * (masks[producer].ndim - 1))
            found[producer] = mask
            weight.data.mul_(mask.view_as(weight))
        for reader in link.readers:
            weight = model.get_submodule(reader).weight
            columns = alive.flatten().to(weight.device)
            mask = masks[reader] & columns.view(1, -1, *[1] * (masks[reader].ndim - 2))
            found[reader] = mask
            weight.data.mul_(mask.view_as(weight))
    return found


def _kept(mask: Tensor, link: Link) -> tuple[int, ...]:
    """Groups of channels of which a consumer's mask keeps anything; the first one when that is none."""
    used = mask.reshape(mask.shape[0], link.count, -1).any(dim=2).any(dim=0)
    return tuple(used.cpu().nonzero().flatten().tolist()) or (0,)


def shrink(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    couplings: Couplings,
    chosen: Mapping[str, Option],
    example: Any,
    forward: Forward | None = None,
) -> Shrunk:
    """Take the removed channels out of a copy of a model, and check that it still computes the same.

    Parameters
    ----------
    model
        Masked: of removed columns the weights are zero.
    masks
        Of every unit in its weight's shape, of which producers' follow their consumer (:func:`rows_follow`).
    couplings, chosen
        Links, and the option of each unit.
    example
        One batch, on which both models must agree. A cut that changes the output is not made.
    forward
        ``forward(model, example)``.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    >>> net[2].weight.data[:, 1::2] = 0
    >>> masks = {"2": net[2].weight != 0, "0": torch.tensor([[True], [False]] * 2).expand(4, 3)}
    >>> options = {"0": Option("rows:1", 0.5), "2": Option("columns:1", 0.5)}
    >>> links = Couplings((Link("2", ("0",), (), None, 4, 1),))
    >>> shrink(net, masks, links, options, torch.ones(1, 3)).model[0]
    Linear(in_features=3, out_features=2, bias=True)
    """
    wanted = [
        Removal(link, kept)
        for link in couplings.links
        if chosen[link.consumer].removes == "columns" and len(kept := _kept(masks[link.consumer], link)) < link.count
    ]
    if not wanted:
        return Shrunk(model, dict(masks))
    with evaluating(model):
        before = _outputs(model, example, forward)
    small = _made(model, wanted, before, example, forward)
    done, refused = wanted, {}
    if isinstance(small, str):  # one by one, to keep those that can be made
        small, done = model, []
        for removal in wanted:
            made = _made(model, [*done, removal], before, example, forward)
            if isinstance(made, str):
                refused[removal.link.consumer] = made
            else:
                small, done = made, [*done, removal]
    left = dict(masks)
    for removal in done:
        for unit in removal.link.units:
            left[unit] = _cut_mask(masks[unit], removal, unit)
    return Shrunk(small, left, tuple(done), refused)


def _made(
    model: nn.Module, removals: Sequence[Removal], before: Sequence[Tensor], example: Any, forward: Forward | None
) -> nn.Module | str:
    """The smaller model, or why it is of no use."""
    try:
        small = operate(copied_module(model), removals)
        with evaluating(small):
            after = _outputs(small, example, forward)
    except FewerError as error:
        return str(error)
    off = difference(before, after)
    return (
        small if off <= tolerance(before) else f"the smaller model gives another output (relative difference {off:.2g})"
    )


def _outputs(model: nn.Module, example: Any, forward: Forward | None) -> list[Tensor]:
    return numbers_of(call(model, example, forward))


def _cut_mask(mask: Tensor, removal: Removal, unit: str) -> Tensor:
    link = removal.link
    at = torch.cat([torch.arange(g * link.size, (g + 1) * link.size) for g in removal.kept])
    if unit in link.producers:
        start, length = link.part_of(unit)
        at = at[(at >= start) & (at < start + length)] - start
        return mask[torch.cat([at + i * length for i in range(mask.shape[0] // length)])]
    split = mask.reshape(mask.shape[0], link.channels, -1)[:, at]
    return split.reshape(mask.shape[0], -1) if mask.ndim == 2 else split.reshape(-1, len(at), *mask.shape[2:])


def random_cut(model: nn.Module, couplings: Couplings, chosen: Mapping[str, Option]) -> nn.Module:
    """A copy of a model with as many channels as a plan leaves, whichever: it takes the time that the planned one will.

    Parameters
    ----------
    model
        Not changed.
    couplings, chosen
        Links, and the option of each unit.
    """
    twin = copied_module(model)
    for link in couplings.links:
        option = chosen[link.consumer]
        if option.removes == "columns":
            remove(twin, link, link.first(option.sparsity))
    return twin
