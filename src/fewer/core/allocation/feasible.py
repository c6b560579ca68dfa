"""Whether several budgets can be met together at all, and small problems solved by looking at every plan."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fewer.core.allocation.one_budget import solve_one
from fewer.core.allocation.polish import repair
from fewer.core.allocation.problem import Problem
from fewer.core.errors import FewerError

__all__ = ["enumerate_plans", "feasible_start", "labelled_start"]

_LABELS = 200_000
_BUCKETS = 10_000


def feasible_start(problem: Problem) -> np.ndarray:
    """Find some plan within every budget.

    Usually each unit has an option that is cheapest in every metric and this is immediate. Otherwise weighted sums
    of the metrics are tried, then the least of one metric under another, then partial plans are extended unit by
    unit and only those that another beats in every metric are dropped, which is exact.

    Raises
    ------
    FewerError
        When the budgets cannot be met together, or (said as such) when no plan was found in reasonable time.
    """
    scale = np.maximum(problem.room, 1e-300)[:, None, None]
    share = problem.cost / scale
    trials = [share.max(axis=0), share.sum(axis=0)]
    for m in range(len(share)):
        trials += [share[m] + share.sum(axis=0) * w for w in (0.01, 0.1, 0.3)]
    for trial in trials:
        choice = trial.argmin(axis=1)
        if problem.fits(choice):
            return choice
        if (fixed := repair(problem, choice)) is not None:
            return fixed
    choice, proved = labelled_start(problem)
    if choice is not None:
        return choice
    if not proved:
        raise FewerError(f"no plan was found that meets {_named(problem)} together; loosen one of these budgets")
    raise cannot_together(problem)


def labelled_start(problem: Problem, most: int = _LABELS) -> tuple[np.ndarray | None, bool]:
    """Extend partial plans unit by unit, keeping those that can still meet every budget and are not dominated.

    Returns
    -------
    choice
        (L,) a plan that fits, or ``None``.
    proved
        Whether ``None`` means that there is none; false when more than ``most`` partial plans had to be kept.
    """
    m, n, _ = problem.cost.shape
    # what the units after i must cost at least
    ahead = np.concatenate([np.cumsum(problem.cost.min(axis=2)[:, ::-1], axis=1)[:, ::-1], np.zeros((m, 1))], axis=1)
    limit = (problem.room + 1e-9 * np.abs(problem.room))[:, None]
    used, steps, proved = np.zeros((m, 1)), [], True
    for i in range(n):
        options = np.flatnonzero(np.isfinite(problem.distortion[i]))
        grown = (used[:, :, None] + problem.cost[:, i, options][:, None, :]).reshape(m, -1)
        keep = np.flatnonzero((grown + ahead[:, i + 1 : i + 2] <= limit).all(axis=0))
        order = keep[np.lexsort(grown[::-1, keep])]
        if m == 2:  # sorted by the first metric: keep where the second is lower than ever before
            best = np.minimum.accumulate(np.concatenate([[np.inf], grown[1, order]]))
            order = order[grown[1, order] < best[:-1]]
        if len(order) > most:
            tightness = ((grown[:, order] + ahead[:, i + 1 : i + 2]) / np.maximum(limit, 1e-300)).max(axis=0)
            order = order[np.argsort(tightness, kind="stable")[:most]]
            proved = False
        if not len(order):
            return None, proved
        steps.append((order // len(options), options[order % len(options)]))
        used = grown[:, order]
    for label in range(used.shape[1]):
        at, choice = label, np.empty(n, dtype=np.int64)
        for i in range(n - 1, -1, -1):
            parent, option = steps[i]
            choice[i], at = option[at], int(parent[at])
        if problem.fits(choice):
            return choice, True
    return None, proved


def enumerate_plans(problem: Problem) -> np.ndarray:
    """Look at every plan: exact, for small problems only.

    Raises
    ------
    FewerError
        When no plan is within every budget.
    """
    options = [np.flatnonzero(np.isfinite(h)) for h in problem.distortion]
    count = math.prod(len(o) for o in options)
    plans, rest = np.empty((count, len(options)), dtype=np.int64), np.arange(count)
    for i, allowed in enumerate(options):
        plans[:, i] = allowed[rest % len(allowed)]
        rest = rest // len(allowed)
    rows = np.arange(len(options))
    near = np.ones(count, dtype=bool)
    for cost, room in zip(problem.cost, problem.room, strict=True):
        near &= cost[rows, plans].sum(axis=1) <= room + 1e-9 * abs(room)
    plans = plans[near]
    for plan in plans[np.argsort(problem.distortion[rows, plans].sum(axis=1), kind="stable")]:
        if problem.fits(plan):
            return plan
    raise cannot_together(problem)


def cannot_together(problem: Problem) -> FewerError:
    """The sentence for budgets that can be met one by one only: how low the second can go under the first."""
    first = problem.budgets[0]
    alone = replace(problem.only(0), distortion=problem.cost[1])
    choice = alone.folded(solve_one(alone, _BUCKETS).choice)
    assert choice is not None  # it was unfolded from one
    least = float(problem.spent(choice)[1])
    if least <= problem.limit[1]:  # only with three or more: the first two agree
        return FewerError(
            f"{_named(problem)} cannot be met together, although each can be met alone; loosen one of them"
        )
    return problem.unreachable(1, least, f" together with {first}")


def _named(problem: Problem) -> str:
    return " and ".join(str(b) for b in problem.budgets)
