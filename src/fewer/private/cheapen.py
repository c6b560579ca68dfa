"""The cheapest way to meet a budget of encrypted inference: fewer levels, or fewer diagonals, taught and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from fewer.core.budget import CIRCUIT_METRICS, Budget, parse_budgets
from fewer.core.errors import FewerError
from fewer.core.progress import SILENT, Progress
from fewer.private.adapt import adapt, answers_of
from fewer.private.circuit import Circuit
from fewer.private.compile import NOISE, kinds_of, pack_within
from fewer.private.degrees import Way, plan_degrees, ways_of
from fewer.private.joint import Joint, StepRow, said_by, step_rows
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

_SENSED = 64
"""Images on which diagonals are ranked."""

_FINALISTS = 3
"""Networks with other degrees from which diagonals go; those that change the outputs least."""

_TRIALS = 6
"""Networks with other degrees that are taught for a while and compared; those that change the outputs least."""

_TRIAL_STEPS = 4
"""Of teaching, such a part is a trial: what a network says before it has learnt anything tells little of it."""

_COARSE = 0.1
"""Noise that fewer bits may bring where they are an option, as a share of the standard deviation of results."""

_SOME = 200
"""Images on which ways are put in order before anything is taught, at most."""

_DECIDING = 500
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
    steps
        Of a joint plan: each step alone, and all together.
    network
        What the circuit computes, as a network, which is quicker to try in the clear; None where diagonals have gone.
    """

    name: str
    circuit: Circuit
    parameters: Parameters
    before: dict[str, float]
    after: dict[str, float]
    tried: list[Tried]
    steps: list[StepRow] = field(default_factory=list)
    network: Network | None = None


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
    joint: bool = False,
    apart: Tensor | None = None,
    progress: Progress = SILENT,
) -> Cheap:
    """A circuit within a budget that says what the network says as well as can be.

    Two ways are compared. The degree of each activation is an option of a plan: where it becomes a straight line, the
    linear layers around it become one and a level is saved, so that everything before it costs less. Where no such
    network meets the budget, diagonals go as well, see :func:`~fewer.private.shrink.shrink`. Whatever is left is taught
    the network's results on three quarters of the images, without labels, and the last quarter decides. Networks that
    meet the budget are taught for a quarter of the steps, and the best of them for all.

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
    joint
        Let diagonals go in any case, with and without other degrees, and allow fewer bits where a smaller ring then
        does; the result also tells what each step does alone.
    apart
        Images on which that is told; by default those that decide between ways.

    Raises
    ------
    FewerError
        For a budget of another metric or that cannot be met.
    """
    budgets = check_budget(budget)
    judge = _Judge.of(model, network, images, steps, shift, seed, progress)
    some, wanted = judge.known[:_SOME], judge.wanted[:_SOME]
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
    made = _made({way.key: way for way in found_ways}.values(), images, joint)
    fits = [one for one in made if _within(one.cost(prices), limits)][:_TRIALS]
    found = judge.contest(fits)
    if joint or not found:
        told = {one.key for one in fits}
        rest = [one for one in made if one.key not in told] if joint else made
        found += _cut(rest, judge, budget, before, prices, needed=not found, taught=joint)
    if not found:
        raise FewerError(
            f"the budget {budget} cannot be met by any circuit that fits into a ring of 128 bits of security"
        )
    best = min(found, key=lambda one: one.loss)
    tried = [Tried(one.name, one.cost(prices), one.loss) for one in sorted(found, key=lambda one: one.loss)]
    told = {one.key for one in fits}
    tried += [Tried(one.name, one.cost(prices), None) for one in made if one.key not in told]
    other = next((one for one in fits if one.way.changed and not one.fewer_bits), None)
    if joint and apart is not None:
        judge = replace(judge, held=apart, answers=answers_of(model, network, apart))
    alone = _steps(network, images, made, best, other, judge, prices, budget) if joint else []
    network_of_it = best.taught if best.share == 1 else None
    return Cheap(best.name, best.circuit, best.parameters, before, best.cost(prices), tried, alone, network_of_it)


def _levels(network: Network) -> dict[str, float]:
    """Those of a network that need not fit into any ring."""
    return {"levels": float(len(kinds_of(network)))}


def _priced(made: tuple[Circuit, Parameters], prices: Callable[[Parameters], Prices]) -> tuple[Circuit, Prices]:
    return made[0], prices(made[1])


def _made(ways: Iterable[Way], images: Tensor, joint: bool) -> list[_Made]:
    """Circuits of all ways that fit into a ring, the least distortion first; with fewer bits if that is an option."""
    found = []
    for way in ways:
        one = _packed(way, images)
        found += [one] if one is not None else []
        coarse = _packed(way, images, _COARSE) if joint else None
        if coarse is not None and (one is None or coarse.parameters.degree < one.parameters.degree):
            found.append(replace(coarse, fewer_bits=True))
    return sorted(found, key=lambda one: (one.way.distortion, one.fewer_bits))


def _packed(way: Way, images: Tensor, noise: float = NOISE) -> _Made | None:
    """Its circuit, or None where it is too deep or too large."""
    try:
        return _Made(way, *pack_within(way.network, images, noise=noise))
    except FewerError:
        return None


def _steps(
    network: Network,
    images: Tensor,
    made: Sequence[_Made],
    best: _Made,
    other: _Made | None,
    judge: _Judge,
    prices: Callable[[Parameters], Prices],
    budget: str,
) -> list[StepRow]:
    """What each step of the best plan does without the others."""
    whole = next((one for one in made if not one.way.changed and not one.fewer_bits), None)
    whole = whole or _Made(Way({}, network, 0.0), *pack_within(network, images))
    start = next(one for one in made if one.key == best.key)
    coarse = next((one for one in made if not one.way.changed and one.fewer_bits), None)
    plan = Joint(
        whole=(whole.circuit, whole.parameters),
        start=(start.circuit, start.parameters),
        end=(best.circuit, best.parameters),
        coarse=None if coarse is None else (coarse.circuit, coarse.parameters),
        degrees=best.way.name if best.way.changed else "",
        cut=best.share,
        fewer_bits=best.fewer_bits,
        taught=bool(judge.steps),
        other=None if other is None else ((other.circuit, other.parameters), other.way.name),
        budget=budget,
    )
    seen, held, answers = (t.numpy() for t in (judge.known[:_SENSED], judge.held, judge.answers))
    return step_rows(plan, seen, held, answers, prices, network.answer, network.left)


@dataclass(frozen=True, eq=False)
class _Made:
    """A circuit for one way, and what it was worth."""

    way: Way
    circuit: Circuit
    parameters: Parameters
    loss: float = float("inf")
    more: str = ""
    fewer_bits: bool = False
    share: float = 1.0  # of the time, that is left when diagonals have gone
    learnt: Network | None = None

    @property
    def name(self) -> str:
        return (
            self.way.name + (f", numbers of {self.parameters.scale_bits} bits" if self.fewer_bits else "") + self.more
        )

    @property
    def taught(self) -> Network:
        """Its network, with what it has learnt so far."""
        return self.learnt or self.way.network

    @property
    def key(self) -> tuple[object, ...]:
        """What tells ways and their bits apart."""
        return *self.way.key, self.fewer_bits

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

    def loss(self, circuit: Circuit | Network, parameters: Parameters | None = None) -> float:
        """With the noise of the arithmetic where parameters are given."""
        if isinstance(circuit, Circuit):
            said = torch.from_numpy(said_by(circuit, self.held.numpy(), parameters))
        else:
            said = circuit(self.held)
        return float(agreement_loss(said.float(), self.answers, float(self.wanted.std())))

    def contest(self, made: Sequence[_Made]) -> list[_Made]:
        """All of them after a short teaching, and the best of them taught to the end in its place."""
        if len(made) < 2 or not self.steps:
            return [self.teach(one) for one in made]
        tried = [self.teach(one, max(1, self.steps // _TRIAL_STEPS)) for one in made]
        best = min(range(len(tried)), key=lambda i: tried[i].loss)
        tried[best] = min(tried[best], self.teach(tried[best]), key=lambda one: one.loss)
        return tried

    def teach(self, one: _Made, steps: int | None = None) -> _Made:
        network, steps = one.taught, self.steps if steps is None else steps
        if steps and one.way.changed:
            network = adapt(
                self.model, network, self.known, steps=steps, shift=self.shift, seed=self.seed, progress=self.progress
            )
        circuit = pack_stages(stages_of(network), network.shape, one.parameters.slots)
        loss = self.loss(circuit, one.parameters) if one.fewer_bits else self.loss(network)
        return replace(one, circuit=circuit, loss=loss, learnt=network)


def _cut(
    made: Sequence[_Made],
    judge: _Judge,
    budget: str,
    before: dict[str, float],
    prices: Callable[[Parameters], Prices],
    *,
    needed: bool = True,
    taught: bool = False,
) -> list[_Made]:
    """Diagonals go, too: from the whole network, and from those without activations that change least.

    ``taught``: networks with other degrees learn before diagonals go, and not only after that. ``needed``: it is an
    error when the budget cannot be met so.
    """
    found: list[_Made] = []
    refused: FewerError | None = None
    for one in made[:_FINALISTS]:
        try:
            if taught:
                one = judge.teach(one)
            cut = shrink(one.circuit, judge.known[:_SENSED].numpy(), budget, prices(one.parameters), before)
        except FewerError as error:
            refused = error
            continue
        circuit = cut.circuit
        if judge.steps:
            circuit = teach_circuit(
                circuit, judge.known, judge.wanted,
                steps=max(1, judge.steps // 2), seed=judge.seed, progress=judge.progress,
            )  # fmt: skip
        loss = judge.loss(circuit, one.parameters if one.fewer_bits else None)
        share = cut.predicted_ms / max(cut.before_ms, 1e-12)
        found.append(replace(one, circuit=circuit, loss=loss, more=", fewer diagonals", share=share))
    if not found and needed and refused is not None:
        raise refused
    return found


def _within(cost: dict[str, float], limits: dict[str, float]) -> bool:
    return all(cost[m] <= limit * (1 + 1e-9) for m, limit in limits.items())
