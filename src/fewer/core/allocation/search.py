"""Search around a plan with the true distortion, which is expensive to measure, instead of the sum of curves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewer.core.allocation.problem import Problem
from fewer.core.allocation.proposals import Surrogate, propose_by_scales, propose_by_swaps
from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.core.plan import Allocation

__all__ = ["SearchStep", "local_search"]

_SAME = 25  # proposals that were all tried before end the search: the neighbourhood is used up


@dataclass(frozen=True)
class SearchStep:
    """One evaluation of the search.

    Parameters
    ----------
    evaluation
        Its number; 0 is the start.
    fitness
        The distortion that was measured; infinite when it was not a finite number.
    best
        Least fitness so far, this one included.
    accepted
        Whether this plan became the best.
    kind
        ``"start"``, ``"swap"`` or ``"scales"``.
    changed
        Names of the units whose option differs from the best plan before.
    seconds
        Time since the search began.
    """

    evaluation: int
    fitness: float
    best: float
    accepted: bool
    kind: str
    changed: tuple[str, ...]
    seconds: float


def local_search(
    curves: CurveSet,
    budgets: str | Budget | Iterable[str | Budget],
    start: Allocation,
    fitness: Callable[[np.ndarray], float],
    *,
    evaluations: int = 100,
    seconds: float = math.inf,
    seed: int = 0,
    method: Literal["both", "swap", "scales"] = "both",
    at_least: Sequence[int] | np.ndarray | None = None,
    progress: Callable[[SearchStep, np.ndarray], None] | None = None,
) -> tuple[Allocation, list[SearchStep]]:
    """Improve a plan by its true distortion, within the same budgets.

    The sum of curves leaves out how units act on each other. Two kinds of proposals, both within every budget:

    * **swap**: one unit (early on several) goes to a cheaper level and the freed budget goes to others, guided by the
      predicted change of distortion and by chance (as in EvoPress, arXiv 2410.14649);
    * **scales**: each unit's curve is multiplied by a coefficient and the allocation is solved anew (as in SPDY,
      arXiv 2201.13096). Here the coefficients are drawn from their posterior given every evaluation so far, in a
      linear model of the fitness (Thompson sampling), instead of by random search.

    A proposal is accepted when its true fitness is lower. Which kind is used follows their success so far.

    Parameters
    ----------
    curves
        Costs and predicted distortions of L units.
    budgets
        Budgets that hold throughout.
    start
        A plan within them, usually from :func:`fewer.core.allocation.allocate.allocate`.
    fitness
        Called with a (L,) choice, returns the distortion to be lowered. Called once per evaluation and never twice for
        the same choice.
    evaluations
        Most calls of ``fitness``, the start included.
    seconds
        Time after which no further evaluation begins.
    seed
        Two searches with the same seed and fitness are the same (unless ``seconds`` ends them).
    method
        ``"both"`` or one kind of proposal.
    at_least
        Monotone mode, as in :func:`fewer.core.allocation.allocate.allocate`.
    progress
        Called after each evaluation with the step and the best choice so far; what it raises ends the search.

    Returns
    -------
    Allocation
        The best plan found, never worse than the start; ``distortion`` is the curves' prediction for it.
    list of SearchStep
        One per evaluation.

    Raises
    ------
    FewerError
        When the start is not within the budgets or its fitness is not a number.

    Examples
    --------
    >>> from fewer.core.allocation.allocate import allocate
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5))
    >>> curves = CurveSet(tuple(Curve(Unit(n, "linear", (2, 2)), options, {"weights": [4, 2]}, [0, distortion])
    ...                         for n, distortion in [("a", 1.0), ("b", 2.0)]))
    >>> start = allocate(curves, "weights=75%")
    >>> best, history = local_search(curves, "weights=75%", start, lambda choice: 5.0 * choice[0] + choice[1],
    ...                              evaluations=4)
    >>> start.choice, best.choice
    (array([1, 0]), array([0, 1]))
    """
    if evaluations < 1:
        raise FewerError(f"a search needs at least 1 evaluation, not {evaluations}")
    if method not in ("both", "swap", "scales"):
        raise FewerError(f"unknown search method {method!r}; known are both, scales, swap")
    problem = Problem.build(curves, budgets, at_least)
    best = _start(problem, start)
    began, rng = time.monotonic(), np.random.default_rng(seed)
    value = _measure(fitness, problem.unfold(best))
    if not math.isfinite(value):
        raise FewerError("the fitness of the plan that the search starts from is not a finite number; check the data")
    history = [SearchStep(0, value, value, True, "start", (), time.monotonic() - began)]
    if progress:
        progress(history[0], problem.unfold(best).copy())
    surrogate = Surrogate(problem, best, value)
    seen, same, odds = {best.tobytes()}, 0, _Odds()
    while len(history) < evaluations and same < _SAME and time.monotonic() - began < seconds:
        kind = odds.draw(rng) if method == "both" else method
        propose = propose_by_swaps if kind == "swap" else propose_by_scales
        plan = propose(problem, surrogate, best, seen, len(history) / evaluations, rng)
        if plan is None:
            same += 1
            continue
        same = 0
        seen.add(plan.tobytes())
        new = _measure(fitness, problem.unfold(plan))
        surrogate.add(plan, new)
        differs = problem.unfold(plan) != problem.unfold(best)
        changed = tuple(curves.curves[i].unit.name for i in np.flatnonzero(differs))
        accepted = new < value
        odds.note(kind, accepted)
        if accepted:
            best, value = plan, new
        history.append(SearchStep(len(history), new, value, accepted, kind, changed, time.monotonic() - began))
        if progress:
            progress(history[-1], problem.unfold(best).copy())
    return problem.allocation(best), history


def _start(problem: Problem, start: Allocation) -> np.ndarray:
    """The choice to start from, if it is within the budgets."""
    best = problem.folded(np.array(start.choice, dtype=np.int64))
    if best is None:
        raise FewerError("the plan that the search is to start from is not one that allocation can give; allocate it")
    if not np.isfinite(problem.distortion[np.arange(len(best)), best]).all() or not problem.fits(best):
        raise FewerError(
            "the plan that the search is to start from is not within the budgets; allocate with them first"
        )
    return best


class _Odds:
    """Draws the kind of the next proposal by how often each has won; older wins count less, so that they adapt."""

    def __init__(self) -> None:
        self.wins, self.tries = {"swap": 1.0, "scales": 1.0}, {"swap": 2.0, "scales": 2.0}

    def draw(self, rng: np.random.Generator) -> str:
        odds = np.array([self.wins[kind] / self.tries[kind] for kind in ("swap", "scales")])
        return "swap" if rng.random() < odds[0] / odds.sum() else "scales"

    def note(self, kind: str, won: bool) -> None:
        self.wins[kind], self.tries[kind] = 0.95 * self.wins[kind] + won, 0.95 * self.tries[kind] + 1


def _measure(fitness: Callable[[np.ndarray], float], choice: np.ndarray) -> float:
    """Call the fitness; what is not a finite number counts as infinitely bad."""
    value = float(fitness(choice.copy()))
    return value if math.isfinite(value) else math.inf
