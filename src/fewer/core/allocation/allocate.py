"""Choosing one option per unit under budgets: the plan that distorts least."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fewer.core.allocation.many_budgets import solve_several
from fewer.core.allocation.one_budget import solve_one
from fewer.core.allocation.problem import Problem
from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.core.plan import Allocation

__all__ = ["Allocation", "allocate", "frontier", "solve"]


def allocate(
    curves: CurveSet,
    budgets: str | Budget | Iterable[str | Budget],
    *,
    buckets: int = 10_000,
    at_least: Sequence[int] | np.ndarray | None = None,
) -> Allocation:
    """Choose one option per unit so that the summed distortion is least and no budget is exceeded.

    One budget is solved exactly, up to the rounding of costs to buckets, by dynamic programming; curves may be of
    any shape. What rounding left over is then spent by moves and exchanges. Several budgets at once are solved by
    the same programme on one of them, with multipliers on the others; the best plan within all budgets is returned.

    Parameters
    ----------
    curves
        Costs and distortions of L units.
    budgets
        ``"weights=50%"``, a :class:`Budget`, or several of them; all hold at once.
    buckets
        Into how many buckets the budget is cut. Time and memory grow with it, the rounding slack shrinks.
    at_least
        Monotone mode: for each unit the index of an option. Earlier options, and options that are less sparse, are
        then not chosen, so that an iterative schedule never brings weights back.

    Returns
    -------
    Allocation
        ``slack`` says how much of each budget rounding may have hidden at worst; ``bound`` is a distortion that no
        plan within the budgets is below, so ``distortion - bound`` bounds what a perfect solver could still gain.

    Raises
    ------
    FewerError
        When a budget cannot be met; the sentence says the least that can be reached.

    Notes
    -----
    The objective and the recursion are those of layer-adaptive weight pruning by rate-distortion dynamic programming
    (ICCV 2023); cutting the budget into buckets follows SPDY (arXiv 2201.13096). Chosen here: costs are counted
    beyond the cheapest plan; Lagrangian bounds first rule out options that no better plan can use; the table goes on
    beyond the budget by the worst-case rounding, and plans traced there are held against the true budget.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5))
    >>> curves = CurveSet(tuple(
    ...     Curve(Unit(name, "linear", (2, 2)), options, {"weights": [4, 2]}, [0, distortion])
    ...     for name, distortion in [("a", 1.0), ("b", 3.0)]))
    >>> allocate(curves, "weights=75%").choice
    array([1, 0])
    """
    if buckets < 1:
        raise FewerError(f"the budget must be cut into at least 1 bucket, not {buckets}")
    return solve(Problem.build(curves, budgets, at_least), buckets)


def solve(problem: Problem, buckets: int) -> Allocation:
    """Solve a problem whose arrays are already built; see :func:`allocate`."""
    free = problem.distortion.argmin(axis=1)  # the first of equals: the dense one, when nothing has to be spent less
    if problem.fits(free):
        return problem.allocation(free, {b.metric: 0.0 for b in problem.budgets}, problem.distortion_of(free))
    if len(problem.budgets) > 1:
        return solve_several(problem, buckets)
    return solve_one(problem, buckets)


def frontier(
    curves: CurveSet,
    metric: str,
    values: Sequence[float],
    *,
    relative: bool = True,
    buckets: int = 10_000,
    at_least: Sequence[int] | np.ndarray | None = None,
) -> list[Allocation | None]:
    """Plan many budgets of one metric.

    The arrays are built once. Each budget is then solved on its own, as bounds leave so few options to try that this
    takes milliseconds and is far more accurate than tracing small budgets back in the buckets of a large one.

    Parameters
    ----------
    curves
        Costs and distortions of L units.
    metric
        The metric of all budgets.
    values
        The budgets: shares of the dense cost in (0, 1], or amounts in the metric's base unit.
    relative
        Whether the values are shares.
    buckets
        Into how many buckets each budget is cut.
    at_least
        Monotone mode, as in :func:`allocate`.

    Returns
    -------
    list of Allocation or None
        One per value, in the order given; ``None`` where the budget cannot be met.

    Raises
    ------
    FewerError
        When a value is not a valid budget, or the curves do not measure the metric.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5))
    >>> curve = Curve(Unit("a", "linear", (2, 2)), options, {"weights": [4, 2]}, [0, 1])
    >>> [plan and plan.distortion for plan in frontier(CurveSet((curve,)), "weights", [0.2, 0.5, 1.0])]
    [None, 1.0, 0.0]
    """
    wanted = [Budget(metric, float(v), relative) for v in values]
    if not wanted:
        return []
    # which budgets are out of reach is told one by one, so the arrays are built under one that nothing exceeds
    curves.require(metric)
    dearest = curves.fixed.get(metric, 0.0) + sum(float(c.cost[metric].max()) for c in curves.curves)
    base = Problem.build(curves, Budget(metric, 2 * dearest + 1, False), at_least)
    least = float(base.spent_least()[0])
    problems = [base.limited(budget) for budget in wanted]
    return [solve(p, buckets) if least <= p.limit[0] else None for p in problems]
