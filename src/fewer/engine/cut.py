"""Cut: from curves to one plan and the model that is made by it, at once or in rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from torch import Tensor, nn

from fewer.core.allocation.allocate import Allocation
from fewer.core.allocation.search import local_search
from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.progress import timed
from fewer.data.samples import Samples
from fewer.distortion.distance import Distance
from fewer.engine.apply import apply_options
from fewer.engine.assembly import Assembly
from fewer.engine.contest import Made, decide, final, way_of
from fewer.engine.deploy import plan_within
from fewer.engine.neighbours import Settled
from fewer.engine.outer import outer_of
from fewer.engine.plan import choose
from fewer.engine.sense import Sensed, sense_curves
from fewer.engine.work import Work
from fewer.patterns import to_matrix

__all__ = ["Cut", "Planned", "make_cut", "make_plan", "search_facts", "search_images"]

# less than this share of improvement is not worth a plan that is no longer the exact optimum of its curves
_WORTH = 0.01


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan, and how it was found.

    Attributes
    ----------
    allocator
        What planned: that of the settings, or the winner of the contest.
    allocation
        The plan.
    under
        The budgets that it was planned under, with the time corrected by what timed plans missed.
    tried
        Plans that were timed.
    rows, made
        Of the contest: what took part, and the models that were made.
    """

    allocator: str
    allocation: Allocation
    under: Sequence[Budget]
    tried: Sequence[dict[str, float]]
    rows: Sequence[dict[str, Any]]
    made: dict[bytes, Made]


@dataclass(frozen=True, eq=False)
class Cut:
    """A model that was cut and repaired by a plan.

    Attributes
    ----------
    model, masks
        The compressed copy, and where a weight was kept.
    allocation
        Its plan, which local search may have changed.
    search
        What local search gained, where it ran.
    believed
        Share of each layer's repair that other files bear out.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    allocation: Allocation
    search: dict[str, Any] | None = None
    believed: dict[str, float] = field(default_factory=dict)


def make_plan(
    work: Work, settled: Settled, assembly: Assembly, budgets: Sequence[Budget], timings: dict[str, float]
) -> Planned:
    """Find out which allocator serves best, where that is asked for, and plan with it."""
    settings, sensed = work.settings, settled.sensed
    curves = sensed.curves

    def within(
        allocator: str, start: Sequence[Budget] | None = None
    ) -> tuple[Allocation, list[Budget], list[dict[str, float]]]:
        planner = way_of(allocator).allocator
        with timed(timings, "plan"):
            return plan_within(work, curves, budgets, lambda b: choose(curves, b, planner, power=settings.power), start)

    # what timed plans missed is known before models are made, so that all of them keep the same time
    first = "dp" if settings.allocator == "auto" else settings.allocator
    allocation, under, tried = within(first, settled.under)
    tried = [*settled.tried, *tried]
    with timed(timings, "plan"):
        allocator, rows = decide(work, sensed, assembly, under)
    made: dict[bytes, Made] = {}
    if rows:
        with timed(timings, "apply"):
            allocator, made = final(work, sensed, under, rows)
    if way_of(allocator).allocator != first:
        allocation, under, more = within(allocator, under)
        tried = [*tried, *more]
    return Planned(allocator, allocation, under, tried, rows, made)


def make_cut(
    work: Work,
    sensed: Sensed,
    assembly: Assembly,
    planned: Planned,
    budgets: Sequence[Budget],
    scratch: Path,
    timings: dict[str, float],
) -> Cut:
    """Improve the plan on the assembled model where that is allowed, and make it real."""
    if work.settings.schedule == "iterative":
        return _in_rounds(work, sensed, budgets, scratch, timings)
    allocation, search, way = planned.allocation, None, way_of(planned.allocator)
    with timed(timings, "search"):
        if planned.allocator == "dp":
            allocation, search = _search(work, sensed, assembly, budgets, allocation)
    ready = planned.made.get(way.key(allocation.choice))
    if ready is not None:
        return Cut(ready.model, ready.masks, allocation, search, ready.believed)
    believed: dict[str, float] = {}
    with timed(timings, "apply"):
        model, masks = apply_options(
            work.under(way.settings(work.settings)),
            sensed.options,
            sensed.chosen(allocation.choice),
            outer=outer_of(sensed.curves),
            believed=believed,
        )
    return Cut(model, masks, allocation, search, believed)


def search_facts(before: float, after: float, evaluations: int, seconds: float) -> dict[str, Any]:
    """What local search gained on images that it did not see, and whether that is worth keeping."""
    kept = bool(after < before * (1 - _WORTH))
    return {"kept": kept, "before": before, "after": after, "evaluations": evaluations, "seconds": seconds}


def _search(
    work: Work, sensed: Sensed, assembly: Assembly, budgets: Sequence[Budget], start: Allocation
) -> tuple[Allocation, dict[str, Any] | None]:
    settings = work.settings
    if settings.search == 0 or len(sensed.curves) < 2 or not start.choice.any():
        return start, None
    began = perf_counter()
    batches, reference, judged, judge = search_images(work)
    with work.progress.stage("search", settings.search) as stage:
        found, steps = local_search(
            sensed.curves,
            budgets,
            start,
            lambda choice: assembly.distortion(choice, batches, reference),
            evaluations=settings.search,
            seed=settings.seed,
            progress=lambda step, _best: stage.advance(1, f"{step.best:.4g}"),
        )
    # lower on the images that it was tuned on means little: other images decide
    before, after = (assembly.distortion(plan.choice, judged, judge) for plan in (start, found))
    facts = search_facts(before, after, len(steps), perf_counter() - began)
    return (found, facts) if facts["kept"] else (start, facts)


def search_images(work: Work) -> tuple[Sequence[Samples], Distance, Sequence[Samples], Distance]:
    """Images to search on and others to decide on; the stored weights were fitted to neither."""
    prepared = work.prepared
    images = prepared.sensing_images
    half = max(1, len(images) // 2)
    search, judge = images[:half].split(work.settings.batch), images[-half:].split(work.settings.batch)
    return search, prepared.reference(search), judge, prepared.reference(judge)


def _in_rounds(work: Work, sensed: Sensed, budgets: Sequence[Budget], scratch: Path, timings: dict[str, float]) -> Cut:
    """Reach the budget in geometric steps, 1 - (1 - q)^k; masks only grow, curves are sensed anew at every step."""
    settings = work.settings
    curves, model, masks = sensed, None, {}
    choice: np.ndarray | None = None
    allocation = None
    for number in range(1, settings.rounds + 1):
        if number > 1:
            assert model is not None
            alive = {name: to_matrix(mask) for name, mask in masks.items()}
            with timed(timings, "sense"):
                curves = sense_curves(work, model=model, alive=alive, ledger_path=scratch / f"ledger-{number}.jsonl")
        steps = [_step_of(b, sensed.curves, number, settings.rounds) for b in budgets]
        allocation = choose(curves.curves, steps, settings.allocator, choice, power=settings.power)
        choice = allocation.choice
        chosen = sensed.chosen(choice)
        with timed(timings, "apply"):
            model, masks = apply_options(
                work,
                sensed.options,
                chosen,
                model=model,
                alive={name: to_matrix(mask) for name, mask in masks.items()},
                title=f"apply {number}/{settings.rounds}",
            )
    assert model is not None and allocation is not None
    return Cut(model, masks, allocation)


def _step_of(budget: Budget, curves: CurveSet, number: int, rounds: int) -> Budget:
    """Budget of one round: the dense cost times the wanted share to the power of number / rounds."""
    dense, limit = curves.dense(budget.metric), budget.limit(curves)
    if number == rounds or limit >= dense:
        return budget
    return Budget(budget.metric, dense * (limit / dense) ** (number / rounds), False)
