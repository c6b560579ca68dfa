"""The cheapest way to meet a budget of encrypted inference: fewer levels, or fewer diagonals, taught and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.budget import CIRCUIT_METRICS, Budget, parse_budgets
from fewer.core.errors import FewerError
from fewer.core.progress import SILENT, Progress
from fewer.private.adapt import adapt, answers_of
from fewer.private.circuit import Circuit
from fewer.private.compile import kinds_of, pack_within
from fewer.private.degrees import Way, plan_degrees, ways_of
from fewer.private.layout import pack_stages
from fewer.private.network import Network
from fewer.private.price import Prices, predict_ms, typical
from fewer.private.security import Parameters
from fewer.private.shrink import shrink
from fewer.private.stages import stages_of
from fewer.private.teach import agreement_loss, teach_circuit

__all__ = ["METRICS", "Cheap", "Tried", "cheapen", "cost_of"]

METRICS = CIRCUIT_METRICS
"""What a circuit can be planned for."""

_FINALISTS = 3
"""Networks with fewer activations that are taught and compared; those that change the outputs least."""

_DECIDING = 200
"""Images that decide, at most."""


@dataclass(frozen=True)
class Tried:
    """One way to meet the budget.

    Attributes
    ----------
    name
        What was done.
    cost
        By metric.
    loss
        Distance from the network's results on images that did not teach, after teaching; None where the budget is not
        met.
    """

    name: str
    cost: dict[str, float]
    loss: float | None


@dataclass(frozen=True, eq=False)
class Cheap:
    """The circuit that was chosen.

    Attributes
    ----------
    name
        What was done.
    before
        Cost of the whole circuit by metric, ``after`` that of this one.
    tried
        All ways that were compared.
    """

    name: str
    circuit: Circuit
    parameters: Parameters
    before: dict[str, float]
    after: dict[str, float]
    tried: list[Tried]


def cost_of(circuit: Circuit, prices: Prices) -> dict[str, float]:
    """Predicted milliseconds, rotations and levels of a circuit."""
    values = predict_ms(circuit, prices), float(circuit.counts().get("rotate", 0)), float(circuit.levels)
    return dict(zip(METRICS, values, strict=True))


def check_budget(budget: str) -> list[Budget]:
    """Budgets that a circuit can be planned for.

    Raises
    ------
    FewerError
        For another metric.

    Examples
    --------
    >>> [str(b) for b in check_budget("he=0.5x,levels=3")]
    ['he=0.5x', 'levels=3']
    """
    budgets = parse_budgets(budget)
    for one in budgets:
        if one.metric not in METRICS:
            raise FewerError(f"a circuit is planned for he, rotations or levels, not for {one.metric!r}; write he=0.5x")
    return list(budgets)


def cheapen(
    model: nn.Module,
    network: Network,
    images: Tensor,
    budget: str,
    *,
    prices: Callable[[Parameters], Prices] = typical,
    steps: int = 400,
    shift: int = 1,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Cheap:
    """A circuit within a budget that says what the network says as well as can be.

    Two ways are compared. The degree of each activation is an option of a plan: where it becomes a straight line, the
    linear layers around it become one and a level is saved, so that everything before it costs less. Where no such
    network meets the budget, diagonals go as well, see :func:`~fewer.private.shrink.shrink`. Whatever is left is taught
    the network's results on three quarters of the images, without labels, and the last quarter decides.

    Parameters
    ----------
    model
        The teacher.
    network
        Of :func:`~fewer.private.compile.approximate_activations`, taught or not.
    images
        [N, channels, height, width] as the network takes them.
    budget
        ``he=0.5x`` of the predicted time, ``rotations=80``, ``levels=3``, or several.
    prices
        Of operations by parameters: measured ones, or typical ones.
    steps, shift, seed
        Of teaching.

    Raises
    ------
    FewerError
        For a budget of another metric or that cannot be met.
    """
    budgets = check_budget(budget)
    judge = _Judge.of(model, network, images, steps, shift, seed, progress)
    some, wanted = judge.known[:_DECIDING], judge.wanted[:_DECIDING]
    fixed = {b.metric: b.value for b in budgets if not b.relative}

    def costs(changed: Network) -> dict[str, float]:
        return cost_of(*_priced(pack_within(changed, images), prices))

    try:
        before = costs(network)
        found_ways = [*ways_of(network, some, wanted), *plan_degrees(network, some, wanted, budget, costs)]
    except FewerError:
        # deeper than any ring: only a number of levels says how much has to go
        if set(fixed) != {"levels"} or len(budgets) > 1:
            raise
        before = _levels(network)
        found_ways = plan_degrees(network, some, wanted, budget, _levels)
    limits = {b.metric: b.value * before[b.metric] for b in budgets if b.relative} | fixed
    made = [_packed(way, images) for way in {way.key: way for way in found_ways}.values()]
    made = sorted((one for one in made if one is not None), key=lambda one: one.way.distortion)
    fits = [one for one in made if _within(one.cost(prices), limits)][:_FINALISTS]
    found = [judge.teach(one) for one in fits] or _cut(made, judge, budget, before, prices)
    if not found:
        raise FewerError(
            f"the budget {budget} cannot be met by any circuit that fits into a ring of 128 bits of security"
        )
    best = min(found, key=lambda one: one.loss)
    tried = [Tried(one.name, one.cost(prices), one.loss) for one in sorted(found, key=lambda one: one.loss)]
    told = {one.way.key for one in fits}
    tried += [Tried(one.name, one.cost(prices), None) for one in made if one.way.key not in told]
    return Cheap(best.name, best.circuit, best.parameters, before, best.cost(prices), tried)


def _levels(network: Network) -> dict[str, float]:
    """Those of a network that need not fit into any ring."""
    return {"levels": float(len(kinds_of(network)))}


def _priced(made: tuple[Circuit, Parameters], prices: Callable[[Parameters], Prices]) -> tuple[Circuit, Prices]:
    return made[0], prices(made[1])


def _packed(way: Way, images: Tensor) -> _Made | None:
    """Its circuit, or None where it is too deep or too large."""
    try:
        return _Made(way, *pack_within(way.network, images))
    except FewerError:
        return None


@dataclass(frozen=True, eq=False)
class _Made:
    """A circuit for one way, and what it was worth."""

    way: Way
    circuit: Circuit
    parameters: Parameters
    loss: float = float("inf")
    more: str = ""

    @property
    def name(self) -> str:
        return self.way.name + self.more

    def cost(self, prices: Callable[[Parameters], Prices]) -> dict[str, float]:
        return cost_of(self.circuit, prices(self.parameters))


@dataclass(frozen=True, eq=False)
class _Judge:
    """The network, what it says, and images to teach and to decide with."""

    model: nn.Module
    known: Tensor
    wanted: Tensor
    held: Tensor
    answers: Tensor
    steps: int
    shift: int
    seed: int
    progress: Progress

    @classmethod
    def of(
        cls, model: nn.Module, network: Network, images: Tensor, steps: int, shift: int, seed: int, progress: Progress
    ) -> _Judge:
        wanted = answers_of(model, network, images)
        cut = max(1, len(images) * 3 // 4)
        rest = slice(cut if cut < len(images) else 0, None)
        held, answers = images[rest][:_DECIDING], wanted[rest][:_DECIDING]
        return cls(model, images[:cut], wanted[:cut], held, answers, steps, shift, seed, progress)

    def loss(self, circuit: Circuit) -> float:
        said = np.concatenate([circuit.run(part.numpy()) for part in self.held.split(20)])
        return float(agreement_loss(torch.from_numpy(said).float(), self.answers, float(self.wanted.std())))

    def teach(self, one: _Made) -> _Made:
        network = one.way.network
        if self.steps and one.way.changed:
            network = adapt(
                self.model, network, self.known,
                steps=self.steps, shift=self.shift, seed=self.seed, progress=self.progress,
            )  # fmt: skip
        circuit = pack_stages(stages_of(network), network.shape, one.parameters.slots)
        return replace(one, circuit=circuit, loss=self.loss(circuit))


def _cut(
    made: Sequence[_Made],
    judge: _Judge,
    budget: str,
    before: dict[str, float],
    prices: Callable[[Parameters], Prices],
) -> list[_Made]:
    """Diagonals go, too: from the whole network, and from those without activations that change least."""
    found: list[_Made] = []
    refused: FewerError | None = None
    for one in made[:_FINALISTS]:
        try:
            circuit = shrink(one.circuit, judge.known[:64].numpy(), budget, prices(one.parameters), before).circuit
        except FewerError as error:
            refused = error
            continue
        if judge.steps:
            circuit = teach_circuit(
                circuit, judge.known, judge.wanted,
                steps=max(1, judge.steps // 2), seed=judge.seed, progress=judge.progress,
            )  # fmt: skip
        found.append(replace(one, circuit=circuit, loss=judge.loss(circuit), more=", fewer diagonals"))
    if not found and refused is not None:
        raise refused
    return found


def _within(cost: dict[str, float], limits: dict[str, float]) -> bool:
    return all(cost[m] <= limit * (1 + 1e-9) for m, limit in limits.items())
