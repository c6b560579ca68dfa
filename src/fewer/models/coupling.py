"""Which layers' input channels can be removed together with what makes them.

Each claim is tried out on the model itself (:mod:`fewer.models.coupling_search`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import nn

from fewer.core.unit import Unit
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.models.coupling_search import Finder
from fewer.models.running import Forward, evaluating
from fewer.models.surgery import Link

__all__ = ["Couplings", "find_links"]


@dataclass(frozen=True)
class Couplings:
    """What :func:`find_links` found.

    Attributes
    ----------
    links
        No unit is in two of them.
    reasons
        For every other unit, why none of its input channels can be removed.
    between
        By consumer, multiply-accumulates of one sample that no unit does and that shrink with its input channels:
        the products of attention. 0 where a name is missing.
    """

    links: tuple[Link, ...] = ()
    reasons: Mapping[str, str] | None = None
    between: Mapping[str, float] = field(default_factory=dict)

    def of(self, unit: str) -> Link | None:
        """The link that a unit is part of."""
        return next((link for link in self.links if unit in link.units), None)

    def told(self, unit: str) -> str:
        """In words, for a table: which input channels of a unit can go, or why none can.

        Examples
        --------
        >>> Couplings((Link("fc2", ("fc1",), (), None, 64, 16),)).told("fc2")
        '4 groups of 16, with fc1'
        """
        link = next((link for link in self.links if link.consumer == unit), None)
        if link is not None:
            others = "".join(f", read by {name} too" for name in link.readers)
            return f"{link.count} groups of {link.size}, with {', '.join(link.producers)}{others}"
        made = next((f"; its outputs can go with {one.consumer}" for one in self.links if unit in one.producers), "")
        return f"none: {(self.reasons or {}).get(unit, 'not looked for')}{made}"


def find_links(
    model: nn.Module,
    units: Sequence[Unit],
    example: Any,
    forward: Forward | None = None,
    done: Callable[[str], None] = lambda name: None,
) -> Couplings:
    """Find, for every unit, the units and modules that lose outputs when it loses input channels.

    Parameters
    ----------
    model
        Not changed.
    units
        In the order of execution. Layers that are no units are never cut.
    example
        One batch; a real image tells more than a constant one.
    forward
        ``forward(model, example)``.
    done
        Called with the name of each unit.

    Returns
    -------
    Couplings
        Where links overlap (a layer's outputs and its inputs could both be cut) the ones that save most are kept.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)).eval()
    >>> found = find_links(net, [Unit("0", "linear", (32, 4)), Unit("2", "linear", (2, 32))], torch.randn(3, 4))
    >>> found.links[0].units, found.reasons
    (('0', '2'), {'0': 'no layer before it makes its inputs, channel by channel'})
    """
    finder = Finder(set_evaluating(copied_module(model)), units, example, forward)
    found: dict[str, Link] = {}
    reasons: dict[str, str] = {}
    with evaluating(finder.model):
        finder.trace()
        for unit in units:
            link = finder.link(unit)
            if isinstance(link, Link):
                found[unit.name] = link
            else:
                reasons[unit.name] = link
            done(unit.name)
        macs = {unit.name: unit.macs for unit in units}
        links = list(found.values())
        chosen = _apart(links, [sum(macs[u] for u in link.units) for link in links])
        for link in links:
            if link not in chosen:
                other = next(c for c in chosen if {*c.units} & {*link.units})
                reasons[link.consumer] = f"it shares a layer with the cut before {other.consumer}"
        between = {link.consumer: finder.between(link) for link in chosen if link.attention is not None}
    return Couplings(tuple(chosen), reasons, between)


def _apart(links: Sequence[Link], worth: Sequence[float]) -> list[Link]:
    """The links, no two of which share a unit, that are worth most together."""
    units = [{*link.units} for link in links]
    clash = [frozenset(j for j in range(len(links)) if j != i and units[i] & units[j]) for i in range(len(links))]

    @cache
    def best(left: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        if not left:
            return 0.0, ()
        first, rest = left[0], left[1:]
        with_it = best(tuple(i for i in rest if i not in clash[first]))
        taken = (worth[first] + with_it[0], (first, *with_it[1]))
        return max(taken, best(rest), key=lambda found: found[0]) if clash[first] & {*rest} else taken

    chosen: list[int] = []
    left = set(range(len(links)))
    while left:  # links that clash stand near each other; those that do not are no question
        near, grown = {min(left)}, {min(left)}
        while grown:
            grown = {j for i in grown for j in clash[i]} - near
            near |= grown
        chosen += best(tuple(sorted(near)))[1]
        left -= near
    return [links[i] for i in sorted(chosen)]
