"""Several budgets at once: exact dynamic programming on one of them, multipliers on the others."""

from __future__ import annotations

import numpy as np

from fewer.core.allocation.bounds import reduce_problem
from fewer.core.allocation.feasible import enumerate_plans, feasible_start
from fewer.core.allocation.knapsack import Table
from fewer.core.allocation.one_budget import last_fitting, solve_one
from fewer.core.allocation.polish import polish, repair
from fewer.core.allocation.problem import Problem
from fewer.core.plan import Allocation

__all__ = ["solve_several"]

_ENUMERATE = 50_000  # problems with at most so many plans are solved by looking at all of them
_COARSE = 2_000  # buckets while the multipliers are searched
_STEPS = 10
_REPAIRABLE = 0.01  # a plan over budget by at most this share is brought back
_CLOSE = 1e-5  # of the bound, where the search ends
_FINALISTS = 3  # plans that exchanges are tried on, which takes longest


def solve_several(problem: Problem, buckets: int) -> Allocation:
    r"""Find a plan of low distortion within every budget.

    For each budget in turn the distortion is penalised by the other metrics,
    :math:`\min \sum \delta + \sum_m \mu_m c_m` under that budget, which the dynamic programme solves exactly up to
    rounding. The multipliers are found by bisection. Plans that fit, and plans slightly over that could be repaired,
    are polished and the best is kept. Each penalised solution also gives a lower bound on the distortion
    (weak duality); the largest is reported as ``bound``.

    Small problems are solved by enumeration. When one budget alone already leads to a plan within all of them,
    that plan is returned, since no other can be better than rounding allows.

    Raises
    ------
    FewerError
        When the budgets, each reachable alone, cannot be met together.
    """
    if _few(problem):
        choice = enumerate_plans(problem)
        return problem.allocation(choice, {b.metric: 0.0 for b in problem.budgets}, problem.distortion_of(choice))
    bound = -np.inf
    for m in range(len(problem.budgets)):
        alone = solve_one(problem.only(m), buckets)
        bound = max(bound, alone.bound)
        choice = problem.folded(alone.choice)
        if choice is not None and problem.fits(choice):
            slack = {b.metric: 0.0 for b in problem.budgets} | alone.slack
            return problem.allocation(choice, slack, bound)
    reduced = reduce_problem(problem, feasible_start(problem))
    bound = max(bound, reduced.bound)
    small = reduced.problem
    if _few(small):
        choice = reduced.original(enumerate_plans(small))
        return problem.allocation(choice, {b.metric: 0.0 for b in problem.budgets}, problem.distortion_of(choice))
    search = _Search(small, reduced.start, bound)
    for m in range(len(problem.budgets)):
        search.multipliers(m, buckets, reduced.mu)
    slack = {b.metric: w for b, w in zip(problem.budgets, search.slack, strict=True)}
    return problem.allocation(reduced.original(search.best()), slack, search.bound)


def _few(problem: Problem) -> bool:
    """Whether there are so few plans that all can be looked at."""
    return bool(np.log(np.isfinite(problem.distortion).sum(axis=1)).sum() <= np.log(_ENUMERATE))


class _Search:
    """The best plans so far, the best bound, and the bisection that improves both."""

    def __init__(self, problem: Problem, start: np.ndarray, bound: float) -> None:
        self.problem = problem
        self.found: dict[bytes, tuple[float, np.ndarray]] = {}
        self.bound = bound
        self.slack = [0.0] * len(problem.budgets)
        self.offer(start)

    def offer(self, choice: np.ndarray | None) -> None:
        if choice is not None and self.problem.fits(choice):
            choice = polish(self.problem, choice, pairs=False)
            self.found[choice.tobytes()] = (self.problem.distortion_of(choice), choice)

    def best(self) -> np.ndarray:
        """The best plan, once the few most promising ones have been improved by exchanges."""
        ranked = sorted(self.found.values(), key=lambda f: f[0])[:_FINALISTS]
        return min((polish(self.problem, choice) for _, choice in ranked), key=self.problem.distortion_of)

    def penalised(self, m: int, mu: np.ndarray, buckets: int) -> np.ndarray:
        """Solve for given multipliers; offer what fits and return how far each metric is over its limit."""
        p = self.problem
        weighted = np.tensordot(mu, np.where(np.isfinite(p.cost), p.cost, 0.0), axes=1)
        room = float(p.room[m])
        table = Table(p.cost[m], p.distortion + weighted, room, buckets)
        choice, bucket = last_fitting(p, table, room, m)
        reach = min(table.reach(room), table.size)
        self.slack[m] = (reach - bucket) * table.width
        self.bound = max(self.bound, float(table.distortion[reach] - mu @ p.room))
        over = p.spent(choice) - p.limit
        # far from the budgets a repair takes long and leads nowhere good
        if (over <= _REPAIRABLE * np.abs(p.limit)).all():
            self.offer(choice if (over <= 0).all() else repair(p, choice))
        return over

    def done(self) -> bool:
        """Whether the best plan is so close to the bound that searching on is idle."""
        distortion = min(h for h, _ in self.found.values())
        return distortion - self.bound <= _CLOSE * abs(distortion)

    def multipliers(self, m: int, buckets: int, near: np.ndarray) -> None:
        """Bisect the multiplier of each other budget, in the logarithm, with the first budget kept exactly.

        ``near`` are the multipliers of the best Lagrangian bound; those of the exact programme lie close to them.
        """
        p, others = self.problem, [o for o in range(len(self.problem.budgets)) if o != m]
        coarse, mu = min(buckets, _COARSE), np.where(np.arange(len(near)) == m, 0.0, near)
        finite = np.isfinite(p.distortion)
        for _ in range(1 if len(others) == 1 else 2):
            for o in others:
                # without a hint: distortion range over cost range, and far down from there
                unit = near[o] or float(np.ptp(p.distortion[finite])) / max(float(np.ptp(p.cost[o][finite])), 1e-300)
                low, high = (-3.0, 3.0) if near[o] > 0 else (-30.0, 4.0)
                for _ in range(_STEPS):
                    if self.done():
                        return
                    middle = (low + high) / 2
                    mu[o] = unit * 2.0**middle
                    if self.penalised(m, mu, coarse)[o] <= 0:
                        high = middle
                    else:
                        low = middle
                mu[o] = unit * 2.0**high
                self.penalised(m, mu, buckets)
