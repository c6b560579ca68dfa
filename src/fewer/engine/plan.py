"""Plan: from curves to one option per unit, and what is known about how good that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fewer.core.allocation.allocate import Allocation, allocate, frontier
from fewer.core.allocation.baselines import BASELINES, by_share
from fewer.core.allocation.power import with_power
from fewer.core.budget import Budget
from fewer.core.couple import in_step
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option

if TYPE_CHECKING:  # planning itself needs no torch, and answers at once because of that
    pass


BETWEEN = {"mean_lamp": "lamp", "mean_erk": "erk", "mean_uniform": "uniform"}
"""Plans halfway between the exact one and that of a rule, and the rule."""


def choose(
    curves: CurveSet,
    budgets: Sequence[Budget],
    allocator: str,
    at_least: np.ndarray | None = None,
    *,
    power: float = 0.0,
) -> Allocation:
    """Allocate by name: ``dp`` or one of :data:`fewer.core.allocation.baselines.BASELINES`.

    ``bold`` is the DP on what the images have shown, without the doubt about what they have not
    (:func:`fewer.engine.sense.unseen`). ``auto`` is the DP as well: which rule serves best is found out by
    :func:`fewer.engine.contest.contest`.
    ``power`` is the weight of a power term for the DP (:func:`fewer.core.allocation.power.with_power`); what is
    returned states the distortion alone.
    """
    if allocator == "bold":
        found = allocate(as_seen(curves), budgets, at_least=at_least)
        return Allocation(found.choice, found.cost, curves.distortion(found.choice))
    if allocator in BETWEEN:
        return between(curves, budgets, BETWEEN[allocator])
    if allocator not in ("dp", "auto"):
        return best_ladder(curves, budgets, BASELINES[allocator].run, at_least)
    if not power:
        return allocate(curves, budgets, at_least=at_least)
    return _distortion_alone(curves, allocate(with_power(curves, budgets[0].metric, power), budgets, at_least=at_least))


def frontier_of(
    curves: CurveSet, metric: str, shares: Sequence[float], *, power: float = 0.0
) -> list[Allocation | None]:
    """Exact plans for many budgets of one metric, None where one cannot be met; ``power`` as for :func:`choose`."""
    if not power:
        return frontier(curves, metric, shares)
    plans = frontier(with_power(curves, metric, power), metric, shares)
    return [None if plan is None else _distortion_alone(curves, plan) for plan in plans]


def as_seen(curves: CurveSet) -> CurveSet:
    """The curves without what was added for inputs that no image has shown."""
    return replace(
        curves,
        curves=tuple(
            Curve(c.unit, c.options, c.cost, np.maximum(c.distortion - c.scores["unseen"], 0.0), c.scores)
            if "unseen" in c.scores
            else c
            for c in curves.curves
        ),
    )


def between(curves: CurveSet, budgets: Sequence[Budget], rule: str) -> Allocation:
    """Halfway between the exact plan and that of a rule: of each unit the geometric mean of what both keep.

    The exact plan takes distortions to add up, and leaves to some units more than they bear together; a rule errs in
    other ways. What two plans of about the same distortion have in the middle is often better than either.

    Parameters
    ----------
    curves, budgets
        What is to be planned.
    rule
        A name of :data:`fewer.core.allocation.baselines.BASELINES`.

    Raises
    ------
    FewerError
        When one of the two, or what is halfway, does not meet the budgets.
    """
    ours, theirs = (choose(curves, budgets, name).choice for name in ("dp", rule))
    options = [c.options for c in curves.curves]
    pairs = [(o[i], o[k]) for o, i, k in zip(options, ours, theirs, strict=True)]
    keep = [
        np.array([i for i, o in enumerate(offered) if i == 0 or _of_pair(o, *pair, pair[0] == offered[0])])
        for offered, pair in zip(options, pairs, strict=True)
    ]
    share = [(a.kept_bits * b.kept_bits) ** 0.5 / o[0].bits for o, (a, b) in zip(options, pairs, strict=True)]
    limits = [Budget(b.metric, b.limit(curves), False) for b in budgets]
    made = by_share(part_of(curves, keep), limits, np.maximum(share, 1e-6))
    choice = np.array([k[i] for k, i in zip(keep, made.choice, strict=True)])
    choice = in_step(options, curves.groups, choice)
    cost = {m: curves.total(m, choice) for m in curves.metrics}
    if any(cost[b.metric] > b.limit(curves) for b in budgets):
        raise FewerError("halfway between two plans that meet the budgets, coupled layers do not")
    return Allocation(choice, cost, curves.distortion(choice))


def _of_pair(option: Option, ours: Option, theirs: Option, whole: bool) -> bool:
    """Whether an option cuts as one of two does, in the precision of the first; ``whole`` where that is as it came."""
    alike = _of_way(option, _way(ours)) or _of_way(option, _way(theirs))
    return alike and (whole or option.precision == ours.precision)


def _distortion_alone(curves: CurveSet, found: Allocation) -> Allocation:
    """The same plan without the term that was added to the distortion; of the distortion alone no bound was proved."""
    return replace(found, distortion=curves.distortion(found.choice), bound=-math.inf)


def best_ladder(
    curves: CurveSet,
    budgets: Sequence[Budget],
    rule: Callable[..., Allocation],
    at_least: np.ndarray | None = None,
) -> Allocation:
    """Run a rule that knows one way to cut on each pattern and precision of the curves; the least harmful plan wins.

    Raises
    ------
    FewerError
        When it meets the budgets with none of them.
    """
    kinds = {_way(o): None for c in curves.curves for o in c.options if not o.is_dense}
    several = len({o.precision for c in curves.curves for o in c.options}) > 1
    if several:  # what a precision alone saves is open to a rule as it is to us
        kinds |= {_way(o): None for c in curves.curves for o in c.options if o.is_dense and o.precision != "fp32"}
    if len(kinds) <= 1 and not several and not curves.coupled:
        return rule(curves, budgets, at_least=at_least)
    found: list[Allocation] = []
    refused: FewerError | None = None
    for kind in kinds:
        keep = [np.array([i for i, o in enumerate(c.options) if i == 0 or _of_way(o, kind)]) for c in curves.curves]
        try:
            made = rule(part_of(curves, keep), [Budget(b.metric, b.limit(curves), False) for b in budgets])
        except FewerError as error:
            refused = error
            continue
        choice = np.array([k[i] for k, i in zip(keep, made.choice, strict=True)])
        choice = in_step([c.options for c in curves.curves], curves.groups, choice)
        cost = {m: curves.total(m, choice) for m in curves.metrics}
        if any(cost[b.metric] > b.limit(curves) for b in budgets):  # bringing units in step may cost time
            continue
        found.append(Allocation(choice, cost, curves.distortion(choice)))
    if not found:
        wanted = ", ".join(str(b) for b in budgets)
        raise refused or FewerError(f"this baseline cannot meet {wanted} with coupled layers; loosen it")
    return min(found, key=lambda a: a.distortion)


def _way(option: Option) -> tuple[str, str]:
    """Options that one rule can choose from together; rows and columns of any width are one way to cut."""
    return ("columns" if option.removes else option.family, option.precision)


def _of_way(option: Option, kind: tuple[str, str]) -> bool:
    """Whether a rule that cuts in one way may take an option: its cuts, and the whole layer in its precision."""
    return _way(option) == kind or (option.is_dense and option.precision == kind[1])


def part_of(curves: CurveSet, keep: Sequence[np.ndarray]) -> CurveSet:
    """The curves with some of their options only."""
    chosen = [
        Curve(
            c.unit,
            tuple(c.options[i] for i in k),
            {m: v[k] for m, v in c.cost.items()},
            c.distortion[k],
            {n: v[k] for n, v in c.scores.items()},
        )
        for c, k in zip(curves.curves, keep, strict=True)
    ]
    coupled = curves.coupled if any(o.removes for c in chosen for o in c.options) else ()
    return replace(curves, curves=tuple(chosen), coupled=coupled)
