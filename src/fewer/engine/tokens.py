"""Tokens: an outer choice. For each schedule of merges the weights are planned anew at what they then cost."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
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
from fewer.cost.stopwatch import Stopwatch
from fewer.distortion.outputs import reduction
from fewer.engine.assembly import Assembly
from fewer.engine.deploy import measured_here
from fewer.engine.plan import choose
from fewer.engine.prepare import Prepared
from fewer.engine.sense import Sensed
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.models.matching import match
from fewer.models.running import call, evaluating, model_input, use_threads
from fewer.tokens.blocks import merge_after, merge_quickly, mergeable_blocks
from fewer.tokens.merge import TokenState
from fewer.tokens.schedule import present_tokens, schedules

__all__ = ["choose_tokens", "mergeable", "repriced", "schedule_distortion"]


def mergeable(prepared: Prepared) -> tuple[list[str], int, int]:
    """Blocks after which tokens can be merged, how many tokens they see, and how many of these are never merged.

    Raises
    ------
    FewerError
        When there are none.
    """
    if prepared.forward is not None:
        raise FewerError("tokens cannot be merged in a model with its own forward=; leave tokens out")
    return mergeable_blocks(prepared.model, model_input(prepared.model, prepared.example))


_CLOSE = 2.0
"""Schedules whose plan is predicted to distort at most so many times the least are put together and measured."""
_FINALISTS = 5


def choose_tokens(work: Work, sensed: Sensed, budgets: Sequence[Budget], store: Path | None = None) -> Sensed:
    """The schedule of token merges whose best plan distorts least, none among them, as curves at its costs.

    The distortion of a schedule is measured on the sensing images with dense weights, and added to that of the weights:
    an approximation like the sum over layers. Where much is cut and merged it says less and less, so the plans that
    look best are put together, merges and weights, and measured on the same images. Costs follow from the tokens that
    are left in each block. The exact plan is made for every schedule.

    Parameters
    ----------
    work
        The model and how it is compressed.
    sensed
        Curves without any merge.
    budgets
        All that must hold.
    store
        Folder with the repaired weights of every option; without it predictions decide.

    Returns
    -------
    Sensed
        As given when merging nothing is best. Otherwise ``curves.meta["tokens"]`` says what to merge and what was
        tried, and ``plain`` holds the curves as given.

    Raises
    ------
    FewerError
        When the model has no blocks after which tokens can be merged, or the budgets cannot be met even with merges.
    """
    prepared, settings = work.prepared, work.settings
    names, count, protected = mergeable(prepared)
    offered = schedules(count, len(names), protected)
    plan, why = _plan(sensed.curves, budgets, settings)
    refused = [(_least(sensed.curves, budgets), why)]
    tried: list[dict[str, Any]] = [_row("none", count, 0.0, sensed.curves, plan)]
    planned = [(plan, sensed.curves, tried[0])] if plan is not None else []
    with work.progress.stage("tokens", len(offered)) as stage:
        for label, amounts in offered.items():
            tokens = {"name": label, "amounts": dict(zip(names, amounts, strict=True)), "protected": protected}
            merged = merge_after(copy.deepcopy(prepared.model), tokens["amounts"], protected)
            distortion = schedule_distortion(merged, settings, sensed)
            curves = repriced(work, sensed.curves, merged, amounts, count, distortion)
            curves = replace(curves, meta={**curves.meta, "tokens": tokens})
            plan, why = _plan(curves, budgets, settings)
            tried.append(_row(label, present_tokens(count, amounts)[-1], distortion, curves, plan))
            if plan is not None:
                planned.append((plan, curves, tried[-1]))
            refused.append((_least(curves, budgets), why))
            stage.advance(1, label)
    if not planned:  # the one that comes nearest says how near
        nearest = min(refused, key=lambda one: one[0])[1]
        assert nearest is not None
        raise nearest
    chosen = _best_together(prepared, sensed, planned, store)
    if chosen is sensed.curves:
        return sensed
    tokens = {**chosen.meta["tokens"], "distortion": chosen.spent, "tokens": count, "tried": tried}
    return replace(sensed, curves=replace(chosen, meta={**chosen.meta, "tokens": tokens}), plain=sensed.curves)


def _best_together(
    prepared: Prepared,
    sensed: Sensed,
    planned: list[tuple[Allocation, CurveSet, dict[str, Any]]],
    store: Path | None,
) -> CurveSet:
    """The curves whose plan distorts least, by what is predicted, and where that is close, by what is measured.

    Rows of what was measured get ``measured``.
    """
    ranked = sorted(planned, key=lambda one: one[0].distortion)
    close = [one for one in ranked if one[0].distortion <= _CLOSE * ranked[0][0].distortion][:_FINALISTS]
    if store is None or len(close) < 2:
        return ranked[0][1]
    for plan, curves, row in close:
        assembly = Assembly.of(prepared.model, curves, store, prepared.example, prepared.forward)
        row["measured"] = assembly.distortion(plan.choice, sensed.batches, sensed.reference)
    return min(close, key=lambda one: one[2]["measured"])[1]


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


def schedule_distortion(merged: nn.Module, settings: Settings, sensed: Sensed) -> float:
    """Distortion of the output on the sensing images by merges alone."""
    assert sensed.reference is not None
    with evaluating(merged):
        parts = [sensed.reference.change(i, call(merged, batch)) for i, batch in enumerate(sensed.batches)]
    return float(reduction(settings.reduction)(torch.cat(parts)[None])[0])


def repriced(
    work: Work, curves: CurveSet, merged: nn.Module, amounts: Sequence[int], count: int, distortion: float
) -> CurveSet:
    """Curves of a model whose later layers work on fewer tokens.

    FLOPs and modelled joules are counted anew. Time is taken as proportional to the tokens that a layer works on, with
    the time of the merges added; a plan that is timed afterwards is corrected by what this misses.

    Parameters
    ----------
    work
        The model, and how it will be used.
    curves
        Without merges.
    merged
        The dense model with them.
    amounts, count
        Tokens merged after each block, and tokens before.
    distortion
        Of the merges.
    """
    prepared, settings = work.prepared, work.settings
    example = prepared.example
    found = match(merged, example, exclude=settings.exclude)
    positions = {unit.name: unit.positions for unit in found.units}
    fixed = dict(curves.fixed)
    static = fixed_costs(merged, example, found)
    # attention that shrinks with the heads which a layer reads is in that layer's curve, and goes with tokens squared
    inside = {
        unit.name: macs * (positions[unit.name] / unit.positions) ** 2
        for unit in curves.units
        if (macs := prepared.couplings.between.get(unit.name, 0.0))
    }
    fixed |= {m: max(0.0, static[m] - t * sum(inside.values())) for m, t in (("macs", 1.0), ("flops", 2.0))}
    if "latency" in fixed:
        share = float(np.mean(present_tokens(count, amounts))) / count
        fixed["latency"] = fixed["latency"] * share + _merging_ms(work, curves, amounts, count)
    if "energy" in fixed:
        others = prepared.parameters - sum(unit.numel for unit in found.units)
        fixed["energy"] = fixed_joules(fixed["macs"], others, batch=settings.deploy_batch)
    made = []
    for curve in curves.curves:
        unit = replace(curve.unit, positions=positions[curve.unit.name])
        share = unit.positions / curve.unit.positions
        cost = {m: np.asarray(c) * (share if m in ("macs", "flops", "latency") else 1) for m, c in curve.cost.items()}
        if curve.unit.name in inside:
            left = np.array([1 - o.sparsity if o.removes == "columns" else 1.0 for o in curve.options])
            before = prepared.couplings.between[curve.unit.name]
            for metric, times in (("macs", 1.0), ("flops", 2.0)):
                cost[metric] = cost[metric] + times * left * (inside[curve.unit.name] - share * before)
        if "energy" in cost:
            cost["energy"] = np.array(option_joules(unit, curve.options, batch=settings.deploy_batch))
        made.append(Curve(unit, curve.options, cost, curve.distortion, curve.scores))
    came = {metric: curves.dense(metric) for metric in curves.metrics}
    return replace(curves, curves=tuple(made), fixed=fixed, came=came, spent=distortion)


def _merging_ms(work: Work, curves: CurveSet, amounts: Sequence[int], count: int) -> float:
    """Milliseconds of all merges of a schedule, from one in the middle of it; 0 for a device that is not this one."""
    if not measured_here(curves):
        return 0.0
    width = max(u.cols for u in curves.units if u.kind == "linear" and u.positions >= count)
    places = [(t, a) for t, a in zip(present_tokens(count, amounts), amounts, strict=True) if a]
    tokens, amount = places[len(places) // 2]
    x = torch.randn(work.settings.deploy_batch, tokens, width)
    state = TokenState.fresh(x)
    with use_threads(work.settings.threads):
        watch = Stopwatch()
        ratio = watch.time({"merge": lambda: merge_quickly(x, state, amount)}, budget_ms=30.0)["merge"].ratio
        return len(places) * ratio * watch.reference_ms
