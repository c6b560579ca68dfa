"""Offers of outer choices (:mod:`fewer.engine.outer`).

For each offer the weights are planned anew at what they then cost, and the offer whose plan distorts least is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewer.core.allocation.allocate import Allocation
from fewer.core.budget import Budget
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.cost.energy import fixed_joules, option_joules
from fewer.cost.static import fixed_costs
from fewer.distortion.outputs import reduction
from fewer.engine.apply import apply_options
from fewer.engine.as_used import input_rounding, model_in_use
from fewer.engine.assembly import Assembly
from fewer.engine.contest import comparable, together
from fewer.engine.deploy import measured_here, plan_within
from fewer.engine.judge import judge_of, judge_of_fitted
from fewer.engine.outer import outer_of
from fewer.engine.plan import choose
from fewer.engine.sense import Sensed
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.models.matching import match
from fewer.models.running import call, evaluating

__all__ = ["Offer", "change_distortion", "choose_offer", "repriced"]

_CLOSE = 2.0
"""Offers whose plan is predicted to distort at most so many times the least are put together and measured."""
_FINALISTS = 5
_TIMED = 2
"""Offers that keep the time, where each has to be timed, which takes some seconds."""
_MOST = 6
_Planned = tuple[Allocation, CurveSet, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Offer:
    """A change of the dense model.

    Attributes
    ----------
    label
        For people.
    facts
        What is kept of it in ``CurveSet.meta``.
    model
        A copy of the dense model with the change.
    left
        What is left: tokens in the last block, pixels of a side, or frames.
    share
        Of the time that no unit takes.
    more_ms
        Milliseconds that the change itself takes.
    """

    label: str
    facts: Mapping[str, Any]
    model: nn.Module
    left: int
    share: float
    more_ms: Callable[[], float]


def choose_offer(
    work: Work,
    sensed: Sensed,
    budgets: Sequence[Budget],
    store: Path | None,
    key: str,
    whole: int,
    offers: Iterable[Offer],
    count: int,
) -> Sensed:
    """The offer whose best plan distorts least, none among them, as curves at its costs.

    The distortion of an offer is measured on the sensing images with dense weights, and added to that of the weights:
    an approximation like the sum over layers. Where much is changed it says less and less, so the plans that look best
    are put together, offer and weights, and measured on the same images. The exact plan is made for every offer. Before
    an offer is taken, its finished model is held against the one that changes nothing but weights.

    Parameters
    ----------
    work
        The model and how it is compressed.
    sensed
        Curves without any offer.
    budgets
        All that must hold.
    store
        Folder with the repaired weights of every option; without it predictions decide.
    key
        In ``meta``, one of :data:`fewer.engine.outer.OUTER`.
    whole
        What is left without an offer.
    offers, count
        The offers, and how many there are.

    Raises
    ------
    FewerError
        When the budgets cannot be met even with an offer.
    """
    settings = work.settings
    plan, why = _plan(sensed.curves, budgets, settings)
    refused = [(_least(sensed.curves, budgets), why)]
    tried: list[dict[str, Any]] = [_row("none", whole, 0.0, sensed.curves, plan)]
    planned = [(plan, sensed.curves, tried[0])] if plan is not None else []
    with work.progress.stage(key, count) as stage:
        for offer in offers:
            distortion = change_distortion(offer.model, settings, sensed)
            curves = repriced(work, sensed.curves, offer.model, offer.share, offer.more_ms(), distortion)
            curves = replace(curves, meta={**curves.meta, key: {"name": offer.label, **offer.facts}})
            plan, why = _plan(curves, budgets, settings)
            tried.append(_row(offer.label, offer.left, distortion, curves, plan))
            if plan is not None:
                planned.append((plan, curves, tried[-1]))
            refused.append((_least(curves, budgets), why))
            stage.advance(1, offer.label)
    if not planned:  # the one that comes nearest says how near
        nearest = min(refused, key=lambda one: one[0])[1]
        assert nearest is not None
        raise nearest
    chosen = _best_together(work, sensed, budgets, planned, store, timed=key in ("pixels", "frames"))
    if chosen is sensed.curves:
        return sensed
    facts = {**chosen.meta[key], "distortion": chosen.spent, key: whole, "tried": tried}
    return replace(sensed, curves=replace(chosen, meta={**chosen.meta, key: facts}), plain=sensed.curves)


def _best_together(
    work: Work,
    sensed: Sensed,
    budgets: Sequence[Budget],
    planned: list[tuple[Allocation, CurveSet, dict[str, Any]]],
    store: Path | None,
    *,
    timed: bool,
) -> CurveSet:
    """The curves whose plan distorts least, by what is predicted, and where that is close, by what is measured.

    With ``timed``, and where time is budgeted and can be measured here, the plans are timed first, and made anew with
    what the sum over layers had missed: small layers do not get quicker in proportion. Rows of what was measured get
    ``measured``, and ``late`` where no plan kept the time.
    """
    prepared = work.prepared
    limit = next((b.limit(sensed.curves) for b in budgets if b.metric == "latency"), None)
    timed = timed and limit is not None and measured_here(sensed.curves)
    ranked = sorted(planned, key=lambda one: one[0].distortion)
    if store is None or len(ranked) < 2:
        return ranked[0][1]
    if timed and limit is not None:
        found = _in_time(work, budgets, ranked, limit, sensed.curves)
    else:
        found = [one for one in ranked if one[0].distortion <= _CLOSE * ranked[0][0].distortion][:_FINALISTS]
        found += [one for one in planned if one[1] is sensed.curves and not any(one is other for other in found)]
        if len(found) < 2:
            return ranked[0][1]
    for plan, curves, row in found:
        assembly = Assembly.of(prepared.model, curves, store, prepared.example, prepared.forward, input_rounding(work))
        row["measured"] = assembly.distortion(plan.choice, sensed.batches, sensed.reference)
    best = min(found, key=lambda one: (one[2].get("late", False), comparable(one[2]["measured"])))
    whole = next((one for one in found if one[1] is sensed.curves), None)
    if whole is None or best is whole or whole[2].get("late", False) or prepared.deciding is None:
        return best[1]
    return min((whole, best), key=lambda one: _repaired(work, sensed, one))[1]


def _repaired(work: Work, sensed: Sensed, one: _Planned) -> float:
    """What a plan's finished model shows, where it will run, in a number that is lower for better ones.

    It is the product of its distortions on the few images that no repair has seen and on those of the calibration.

    A repair in order makes up for much of a cut and for nothing of a smaller image, so that plans which are only put
    together favour the smaller image: an Inception-like network at 0.3 of its FLOPs had 0.049 with 28 pixels along a
    side that were taken, and has 0.016 with all 32.
    """
    plan, curves, _ = one
    prepared = work.prepared
    assert prepared.deciding is not None
    outer = outer_of(curves)
    title = f"try {', '.join(outer) or 'all'}"
    chosen = sensed.chosen(plan.choice, curves)
    model, masks = apply_options(work, sensed.options, chosen, outer=outer, title=title)
    try:
        used = model_in_use(work, curves, model, masks, chosen)
    except FewerError:
        return math.inf  # what does not run where it is to be used is no plan
    judges = judge_of(prepared, work.settings, prepared.deciding), judge_of_fitted(prepared, work.settings)
    return together(judge.judge(used).distortion for judge in judges)


def _in_time(
    work: Work, budgets: Sequence[Budget], ranked: Sequence[_Planned], limit: float, plain: CurveSet
) -> list[_Planned]:
    """The first offers whose plans keep the time, as far as some do, with their plans made anew from what was timed.

    The plan that changes nothing is one of those that are tried.
    """
    settings = work.settings
    found: list[_Planned] = []
    for _, curves, row in ranked:
        kept = sum(not one[2]["late"] for one in found)
        if (kept >= _TIMED or len(found) >= _MOST) and curves is not plain:
            continue
        plan, _, tried = plan_within(
            work, curves, budgets, lambda b, c=curves: choose(c, b, settings.allocator, power=settings.power)
        )
        row["late"] = bool(tried) and min(t["measured"] for t in tried) > limit
        found.append((plan, curves, row))
    return found


def _plan(
    curves: CurveSet, budgets: Sequence[Budget], settings: Settings
) -> tuple[Allocation | None, FewerError | None]:
    try:
        return choose(curves, budgets, settings.allocator, power=settings.power), None
    except FewerError as error:
        return None, error


def _least(curves: CurveSet, budgets: Sequence[Budget]) -> float:
    """How low a plan can go, as a share of the budget that is furthest away."""
    lows = [(b, curves.total(b.metric, [int(c.cost[b.metric].argmin()) for c in curves.curves])) for b in budgets]
    return max(low / max(b.limit(curves), 1e-300) for b, low in lows)


def _row(name: str, left: int, distortion: float, curves: CurveSet, plan: Allocation | None) -> dict[str, Any]:
    return {
        "schedule": name,
        "left": left,
        "distortion": distortion,
        "flops": curves.total("flops", [0] * len(curves)) / curves.dense("flops"),
        "planned": None if plan is None else plan.distortion,
    }


def change_distortion(changed: nn.Module, settings: Settings, sensed: Sensed) -> float:
    """Distortion of the output on the sensing images by the change alone."""
    assert sensed.reference is not None
    with evaluating(changed):
        parts = [sensed.reference.change(i, call(changed, batch)) for i, batch in enumerate(sensed.batches)]
    return float(reduction(settings.reduction)(torch.cat(parts)[None])[0])


def repriced(
    work: Work, curves: CurveSet, changed: nn.Module, share: float, more_ms: float, distortion: float
) -> CurveSet:
    """Curves of a model whose layers work at fewer positions.

    FLOPs and modelled joules are counted anew. Time is taken as proportional to the positions that a layer works at,
    with the time of the change itself added; a plan that is timed afterwards is corrected by what this misses.

    Parameters
    ----------
    work
        The model, and how it will be used.
    curves
        Without the change.
    changed
        The dense model with it.
    share, more_ms
        As in :class:`Offer`.
    distortion
        Of the change.
    """
    prepared, settings = work.prepared, work.settings
    example = prepared.example
    found = match(changed, example, exclude=settings.exclude)
    positions = {unit.name: unit.positions for unit in found.units}
    fixed = dict(curves.fixed)
    static = fixed_costs(changed, example, found)
    # attention that shrinks with the heads which a layer reads is in that layer's curve, and goes with tokens squared
    inside = {
        unit.name: macs * (positions[unit.name] / unit.positions) ** 2
        for unit in curves.units
        if (macs := prepared.couplings.between.get(unit.name, 0.0))
    }
    fixed |= {m: max(0.0, static[m] - t * sum(inside.values())) for m, t in (("macs", 1.0), ("flops", 2.0))}
    if "latency" in fixed:
        fixed["latency"] = fixed["latency"] * share + more_ms
    if "energy" in fixed:
        others = prepared.parameters - sum(unit.numel for unit in found.units)
        fixed["energy"] = fixed_joules(fixed["macs"], others, batch=settings.deploy_batch)
    made = []
    for curve in curves.curves:
        unit = replace(curve.unit, positions=positions[curve.unit.name])
        part = unit.positions / curve.unit.positions
        cost = {m: np.asarray(c) * (part if m in ("macs", "flops", "latency") else 1) for m, c in curve.cost.items()}
        if curve.unit.name in inside:
            left = np.array([1 - o.sparsity if o.removes == "columns" else 1.0 for o in curve.options])
            before = prepared.couplings.between[curve.unit.name]
            for metric, times in (("macs", 1.0), ("flops", 2.0)):
                cost[metric] = cost[metric] + times * left * (inside[curve.unit.name] - part * before)
        if "energy" in cost:
            cost["energy"] = np.array(option_joules(unit, curve.options, batch=settings.deploy_batch))
        made.append(Curve(unit, curve.options, cost, curve.distortion, curve.scores))
    came = {metric: curves.dense(metric) for metric in curves.metrics}
    return replace(curves, curves=tuple(made), fixed=fixed, came=came, spent=distortion)
