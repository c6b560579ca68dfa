"""From a table to a plan under one budget: trace the furthest plan that truly fits."""

from __future__ import annotations

import numpy as np

from fewer.core.allocation.bounds import reduce_problem
from fewer.core.allocation.knapsack import Table
from fewer.core.allocation.polish import polish
from fewer.core.allocation.problem import Problem
from fewer.core.plan import Allocation

__all__ = ["last_fitting", "solve_one", "trace_plan"]


def last_fitting(problem: Problem, table: Table, room: float, metric: int = 0) -> tuple[np.ndarray, int]:
    """Return the plan of the furthest bucket whose true cost is within one budget, and that bucket."""
    reach = min(table.reach(room), table.size)
    # two buckets back: at the very edge a float error may make the plan of the budget's own bucket not fit
    first = max(min(table.bucket(room), table.size) - 2, 0)
    at = np.arange(reach, first - 1, -1)
    plans = table.trace(at)
    spent = problem.cost[metric][np.arange(plans.shape[1]), plans].sum(axis=1)
    near = spent <= room + 1e-9 * abs(room)
    for bucket, plan in zip(at[near].tolist(), plans[near], strict=True):
        if problem.spent(plan)[metric] <= problem.limit[metric]:
            return plan, bucket
    return problem.cost[metric].argmin(axis=1), 0  # bucket 0: the cheapest plan, which was checked to fit


def trace_plan(problem: Problem, table: Table) -> tuple[np.ndarray, float, float]:
    """Trace the plan of the problem's one budget and spend what is left over.

    Returns
    -------
    choice
        (L,) the plan.
    slack
        No plan that costs at most the limit less this is better than the traced one.
    bound
        No plan within the budget is better than this.
    """
    room = float(problem.room[0])
    choice, bucket = last_fitting(problem, table, room)
    reach = min(table.reach(room), table.size)
    return polish(problem, choice), (reach - bucket) * table.width, float(table.distortion[reach])


def solve_one(problem: Problem, buckets: int) -> Allocation:
    """Solve a problem with one budget: drop the options that bounds rule out, then fill the table for the rest."""
    reduced = reduce_problem(problem, problem.cost[0].argmin(axis=1))
    small = reduced.problem
    table = Table(small.cost[0], small.distortion, float(small.room[0]), buckets)
    traced, slack, bound = trace_plan(small, table)
    best = min((traced, polish(small, reduced.start)), key=small.distortion_of)
    metric = problem.budgets[0].metric
    return problem.allocation(reduced.original(best), {metric: slack}, max(bound, reduced.bound))
