"""Lagrangian bounds: what no plan can be better than, and which options no better plan can use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fewer.core.allocation.polish import polish, repair
from fewer.core.allocation.problem import Problem

__all__ = ["Reduced", "reduce_problem"]

_SUBGRADIENT_STEPS = 200


@dataclass(frozen=True, eq=False)
class Reduced:
    """A problem without the options that cannot be part of a better plan than ``choice``.

    Attributes
    ----------
    problem
        The smaller problem.
    index
        (L, K') the option index in the original problem of each option of the smaller one.
    choice
        (L,) a plan of the original problem that fits.
    bound
        No plan that fits has a distortion below this.
    mu
        (M,) the multipliers of that bound, in distortion per unit of cost.
    """

    problem: Problem
    index: np.ndarray
    choice: np.ndarray
    bound: float
    mu: np.ndarray

    def original(self, choice: np.ndarray) -> np.ndarray:
        """Translate a plan of the smaller problem back."""
        return self.index[np.arange(len(choice)), choice]

    @property
    def start(self) -> np.ndarray:
        """``choice`` in the indices of the smaller problem."""
        return (self.index == self.choice[:, None]).argmax(axis=1)


def reduce_problem(problem: Problem, start: np.ndarray) -> Reduced:
    r"""Bound the least distortion from below, improve a plan, and drop every option that the two rule out.

    For multipliers :math:`\mu \ge 0` the value
    :math:`g(\mu) = \sum_i \min_k (\delta_i(k) + \mu \cdot c_i(k)) - \mu \cdot room` is a lower bound on the distortion
    of every plan within the budgets, and a plan that uses option k of unit i is at least
    :math:`g(\mu) + [\delta_i(k) + \mu \cdot c_i(k) - \min]`. Where that is above the distortion of a known plan, the
    option can go (reduced-cost fixing; Pisinger's core idea for knapsacks). The dynamic programme on what remains is
    quicker, and since the cheapest options that remain lie close to the budget, its buckets are far finer.

    Parameters
    ----------
    problem
        The problem with one or several budgets.
    start
        (L,) any plan that fits.
    """
    scale = np.where(problem.room > 0, problem.room, 1.0)
    cost = np.where(np.isfinite(problem.cost), problem.cost, 0.0) / scale[:, None, None]
    dual = _Dual(problem, cost, start)
    if len(scale) == 1:
        dual.bisect()
    else:
        dual.ascend()
    dual.offer(polish(problem, dual.choice, pairs=False))
    weighted = problem.distortion + np.tensordot(dual.mu, cost, axes=1)
    rise = weighted - weighted.min(axis=1, keepdims=True)
    # a hair of room, so that float error never drops an option of the optimum
    keep = rise <= dual.distortion - dual.bound + 1e-9 * (abs(dual.distortion) + abs(dual.bound))
    keep[np.arange(len(start)), dual.choice] = True
    index = np.argsort(~keep, axis=1, kind="stable")[:, : int(keep.sum(axis=1).max())]
    kept = np.take_along_axis(keep, index, axis=1)
    small = replace(
        problem,
        distortion=np.where(kept, np.take_along_axis(problem.distortion, index, axis=1), np.inf),
        cost=np.where(kept, np.take_along_axis(problem.cost, index[None], axis=2), np.inf),
    )
    return Reduced(small, index, dual.choice, dual.bound, dual.mu / scale)


class _Dual:
    """The best multipliers, bound and plan so far. Costs are in units of the room."""

    def __init__(self, problem: Problem, cost: np.ndarray, start: np.ndarray) -> None:
        self.problem, self.cost = problem, cost
        self.rows = np.arange(len(start))
        self.mu = np.zeros(len(cost))
        self.bound = -np.inf
        self.choice, self.distortion = np.asarray(start, dtype=np.int64), problem.distortion_of(start)

    def offer(self, choice: np.ndarray | None) -> None:
        if (
            choice is not None
            and self.problem.fits(choice)
            and (distortion := self.problem.distortion_of(choice)) < self.distortion
        ):
            self.choice, self.distortion = choice, distortion

    def evaluate(self, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Minimise for given multipliers: the plan, how far it is over (in rooms), and the bound."""
        weighted = self.problem.distortion + np.tensordot(mu, self.cost, axes=1)
        plan = weighted.argmin(axis=1)
        over = self.cost[:, self.rows, plan].sum(axis=1) - (self.problem.room > 0)
        least, paid = weighted[self.rows, plan], float(mu[self.problem.room > 0].sum())
        # less what float sums may be off by, so that it stays a bound for multipliers of any size
        off = (len(plan) + 8) * 2.3e-16 * (np.abs(least).sum() + paid)
        bound = float(least.sum() - paid - off)
        if bound > self.bound:
            self.bound, self.mu = bound, mu.copy()
        return plan, over, bound

    def bisect(self) -> None:
        """One budget: the spending falls as the multiplier rises, so find where it crosses the room."""
        finite = self.problem.distortion[np.isfinite(self.problem.distortion)]
        unit = max(float(np.ptp(finite)), 1e-300)
        low, high = -60.0, 60.0
        over_plan = None
        for _ in range(50):
            middle = (low + high) / 2
            plan, over, _ = self.evaluate(np.array([unit * 2.0**middle]))
            if over[0] <= 0:
                high = middle
                self.offer(plan)
            else:
                low, over_plan = middle, plan
        if over_plan is not None:
            self.offer(repair(self.problem, over_plan))

    def ascend(self) -> None:
        """Several budgets: Polyak's subgradient steps towards the distortion of the known plan."""
        mu = np.zeros(len(self.cost))
        seen: set[bytes] = set()
        relax, since = 1.0, 0
        for _ in range(_SUBGRADIENT_STEPS):
            before = self.bound
            plan, over, bound = self.evaluate(mu)
            since = 0 if self.bound > before else since + 1
            if since >= 10:
                relax, since, mu = relax / 2, 0, self.mu.copy()
                continue
            if (over <= 0).all():
                self.offer(plan)
            elif (over < 0.01).all() and plan.tobytes() not in seen and len(seen) < 10:
                seen.add(plan.tobytes())
                self.offer(repair(self.problem, plan))
            norm = float(np.where((mu > 0) | (over > 0), over, 0.0) @ over)
            if norm <= 0 or self.distortion <= bound:
                break
            mu = np.maximum(mu + relax * (self.distortion - bound) / norm * over, 0.0)
