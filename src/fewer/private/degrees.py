"""The degree of each activation as an option: a straight line, a square, or a square of a square."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from torch import Tensor

from fewer.core.allocation.allocate import allocate
from fewer.core.budget import parse_budgets
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.private.compile import with_degree
from fewer.private.network import Network
from fewer.private.polynomial import DEGREES, Line, Squares, fit_line

__all__ = ["Way", "leave_out", "plan_degrees", "sense_degrees", "ways_of"]

Costs = Callable[[Network], Mapping[str, float]]

_TIGHTER = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25)
"""Shares of a budget that are planned for, as the costs of two changes together are not the sum of both."""


@dataclass(frozen=True, eq=False)
class Way:
    """A network with other degrees.

    Attributes
    ----------
    changed
        Activation (by name) to its degree, where it is not that of the network that was given.
    network
        With them.
    distortion
        Relative squared distance of its results from the wanted ones.
    """

    changed: Mapping[str, int]
    network: Network
    distortion: float

    @property
    def name(self) -> str:
        """In words."""
        gone = [name for name, degree in self.changed.items() if degree == 1]
        more = [f"degree {degree} at {name}" for name, degree in self.changed.items() if degree > 1]
        words = [f"without activation {' and '.join(gone)}"] if gone else []
        return ", ".join(words + more) or "every activation"

    @property
    def key(self) -> tuple[tuple[str, int], ...]:
        """What tells ways apart."""
        return tuple(sorted(self.changed.items()))


def leave_out(network: Network, images: Tensor, gone: Sequence[str]) -> Network:
    """A network in which some activations are the straight lines that are nearest to them on what goes into them.

    The linear layers around such an activation become one when the network is packed.

    Parameters
    ----------
    network
        With polynomials for activations.
    images
        [N, ...] for the fit.
    gone
        Keys of the activations.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from fewer.private.compile import approximate_activations, kinds_of
    >>> from fewer.private.reading import read_network
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    >>> images = torch.randn(9, 1, 2, 2)
    >>> network = approximate_activations(read_network(net, images[:1]), images)
    >>> kinds_of(network), kinds_of(leave_out(network, images, network.order()))
    (['linear', 'joint'], ['linear'])
    """
    for key in network.order():
        if key in gone:
            made = fit_line(network.activations[key], network.inputs_of(key, images).numpy())  # type: ignore[arg-type]
            network = network.with_activations({key: made})
    return network


def _changed(network: Network, images: Tensor, degrees: Mapping[str, int]) -> Network:
    """With other degrees at some keys, in order, so that each is fitted to what the ones before it make."""
    for key in network.order():
        degree = degrees.get(key)
        if degree == 1:
            network = leave_out(network, images, [key])
        elif degree is not None:
            network = with_degree(network, key, network.functions[key], images, degree)
    return network


def _degree(network: Network, key: str) -> int:
    made = network.activations[key]
    assert isinstance(made, (Line, Squares))
    return made.degree


def _error(network: Network, images: Tensor, wanted: Tensor) -> float:
    return float(((network(images) - wanted) ** 2).sum() / (wanted**2).sum())


def ways_of(network: Network, images: Tensor, wanted: Tensor, most: int = 2) -> list[Way]:
    """The network as it is, and every way to leave out up to ``most`` activations, the least distortion first.

    Parameters
    ----------
    network
        With polynomials for activations.
    images
        [N, ...].
    wanted
        Results [N, outputs] that are to be kept.
    """
    wanted = wanted.double()
    keys = network.order()
    found = []
    for count in range(min(most, len(keys)) + 1):
        for gone in combinations(keys, count):
            made = leave_out(network, images, gone) if gone else network
            found.append(Way({network.name_of(k): 1 for k in gone}, made, _error(made, images, wanted)))
    return sorted(found, key=lambda way: way.distortion)


def sense_degrees(network: Network, images: Tensor, wanted: Tensor, costs: Costs) -> CurveSet:
    """A curve for each activation: what each degree costs, and how far results then are from the wanted ones.

    Each option is put into the whole network alone. Costs are those of the whole circuit, so that a level that goes
    makes everything before it cheaper; the part that no option changes is ``fixed``.

    Parameters
    ----------
    network
        With polynomials for activations.
    images
        [N, ...] for the fits.
    wanted
        Results [N, outputs].
    costs
        Of a network, by metric.
    """
    base = dict(costs(network))
    curves, fixed = [], dict(base)
    for key in network.order():
        now = _degree(network, key)
        options, cost, distortion = [Option()], {m: [c] for m, c in base.items()}, [_error(network, images, wanted)]
        for degree in (1, *DEGREES):
            if degree == now:
                continue
            made = _changed(network, images, {key: degree})
            try:
                found = costs(made)
            except FewerError:
                continue  # too deep, or too large
            options.append(Option(f"approximate:degree-{degree}"))
            distortion.append(_error(made, images, wanted))
            for metric, values in cost.items():
                values.append(found[metric])
        for metric, values in cost.items():
            fixed[metric] -= base[metric] - min(values)
        more = {m: np.array(v, dtype=float) - min(v) for m, v in cost.items()}
        curves.append(Curve(Unit(key, "function", (1,)), tuple(options), more, np.array(distortion) - distortion[0]))
    return CurveSet(tuple(curves), fixed={m: max(v, 0.0) for m, v in fixed.items()}, came=base)


def plan_degrees(network: Network, images: Tensor, wanted: Tensor, budget: str, costs: Costs) -> list[Way]:
    """Networks whose degrees dynamic programming finds best for a budget, and for parts of it.

    Parameters
    ----------
    network
        With polynomials for activations.
    images
        [N, ...] for the fits.
    wanted
        Results [N, outputs].
    budget
        ``he=0.5x``, ``rotations=80``, ``levels=3``, or several: depth is one more metric of the plan.
    costs
        Of a network, by metric.
    """
    if not network.order():
        return []
    curves = sense_degrees(network, images, wanted.double(), costs)
    found: dict[tuple[tuple[str, int], ...], Way] = {}
    for words in dict.fromkeys(_tighter(budget, share) for share in _TIGHTER):
        try:
            plan = allocate(curves, words)
        except FewerError:
            break
        degrees = {
            c.unit.name: int(str(c.options[int(k)].pattern).rsplit("-", 1)[1])
            for c, k in zip(curves.curves, plan.choice, strict=True)
            if c.options[int(k)].pattern != "dense"
        }
        made = _changed(network, images, degrees)
        way = Way({network.name_of(k): d for k, d in degrees.items()}, made, _error(made, images, wanted.double()))
        found.setdefault(way.key, way)
    return list(found.values())


def _tighter(budget: str, share: float) -> str:
    """The same budget, smaller in what adds up; levels are what they are."""
    words = []
    for one in parse_budgets(budget):
        value = one.value if one.metric == "levels" else one.value * share
        words.append(f"{one.metric}={value:.6g}{'x' if one.relative else ''}")
    return ",".join(words)
