"""Deploy: put a compressed model on the kernels it was planned for, time it here, and hold the plan against that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from fewer.core.allocation.allocate import Allocation
from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.reading import nested
from fewer.cost.device import device_facts, differences
from fewer.cost.stopwatch import Stopwatch
from fewer.cost.subjects import random_mask, runs_as
from fewer.engine.outer import outer_of, with_outer
from fewer.engine.runtime_deploy import in_runtime, timed_in_runtime, trial_in_runtime
from fewer.engine.runtimes import Chosen, dense_run, deploy_example, feed, undisturbed
from fewer.engine.shrink import random_cut
from fewer.engine.work import Work
from fewer.kernels.accelerate import accelerate
from fewer.kernels.report import LayerReport
from fewer.models.running import evaluating, use_threads
from fewer.runtimes.names import EXPORTED

__all__ = ["Deployed", "deploy", "foretold", "measured_here", "plan_within", "trial_ms"]

_ROUNDS = 5  # plans that are timed before the model is made
_AIM = 0.985  # of the limit: what is left is the noise of the final timing
_TRIES, _SURPRISE = 3, 1.08
_ENOUGH = 0.98  # of the predicted time: what takes longer is timed again, as another job makes a timing longer only
_STEP = 0.6  # of a budget in time that one timing may take away: sums of layers are hardly ever wrong by more
_AS_QUICK = 1.02  # times the quickest plan, where none meets the limit
_CLOSE = 0.95  # a plan that uses this much of a time budget is not planned again


@dataclass(frozen=True, eq=False)
class Deployed:
    """A model on its kernels, and what it takes.

    Attributes
    ----------
    model
        The accelerated model; for inference on this machine, in this process.
    layers
        What became of each layer, and why.
    predicted_ms, measured_ms, dense_ms
        Of a batch: as planned, as timed, and that of the model as it came. The two models are timed in turns, and their
        ratio counts: ``dense_ms`` is that of the profile, which the budget refers to.
    spread
        Interquartile range over median of the timing.
    """

    model: nn.Module
    layers: list[LayerReport]
    predicted_ms: float
    measured_ms: float
    dense_ms: float
    spread: float


def measured_here(curves: CurveSet) -> bool:
    """Whether the curves hold times of this very device, which can be checked by timing the model."""
    facts = nested(curves.meta, "device", "device")
    return bool(facts) and not differences(facts, device_facts(facts["threads"]))


def deploy(
    work: Work,
    model: nn.Module,
    masks: Mapping[str, Tensor],
    options: Mapping[str, Option],
    predicted_ms: float,
    dense_ms: float,
) -> Deployed:
    """Accelerate a compressed model by its plan, and time it beside the model as it came.

    When it is much slower than predicted, its kernels are chosen and timed anew, and the quickest counts.

    Parameters
    ----------
    work
        The original, and how it will be used: batch and threads.
    model, masks
        The compressed model.
    options
        Of each unit; gives the precisions.
    predicted_ms, dense_ms
        What the plan says, and what the profile says about the model as it came.
    """
    example = deploy_example(work)
    precisions = {name: runs_as(option.precision) for name, option in options.items()}
    chosen: Chosen | None = work.prepared.shared.get("runtime")
    if chosen is not None and chosen.runtime in EXPORTED:
        made, rows = in_runtime(work, chosen, model, precisions)
        timings = []
        while not timings or (len(timings) < _TRIES and timings[-1][0] > _ENOUGH * predicted_ms):
            timings.append(timed_in_runtime(work, chosen, made.session))
        return Deployed(made, rows, predicted_ms, min(timings)[0], dense_ms, min(timings)[1])
    against = chosen.against if chosen is not None else "torch"
    dense = dense_run(work, against)
    best: Deployed | None = None
    with use_threads(work.settings.threads), evaluating(work.prepared.model):
        for _ in range(_TRIES):
            watch = Stopwatch(runtimes=True)
            fast, rows = accelerate(model, dict(masks), example=example, precision=precisions, budget_ms=20.0)
            runs = {"dense": dense, "fast": lambda fast=fast: feed(fast, example)}
            found = watch.time(runs, budget_ms=500.0, rounds=7)
            quick = dense_ms * found["fast"].ratio / undisturbed(work, against, found["dense"].ratio, warm=False)
            if best is None or quick < best.measured_ms:
                best = Deployed(fast, rows, predicted_ms, quick, dense_ms, found["fast"].spread)
            # the choice of kernels is a measurement as well, and on a busy machine it may go wrong
            if best.measured_ms <= _SURPRISE * predicted_ms:
                break
    assert best is not None
    return best


def trial_ms(
    work: Work,
    options: Mapping[str, Option],
    predicted_ms: float,
    dense_ms: float,
    outer: Mapping[str, Any] | None = None,
    limit: float = 0.0,
) -> float:
    """Milliseconds that a plan really takes: time does not depend on weights, so random masks will do.

    A time that is longer than predicted, and than ``limit``, is measured again.
    """
    prepared = work.prepared
    chosen: Chosen | None = prepared.shared.get("runtime")
    if chosen is not None and chosen.runtime in EXPORTED:
        return trial_in_runtime(work, chosen, options, max(limit, _SURPRISE * predicted_ms), outer)
    layers: Any = prepared.layers
    masks = {
        name: random_mask(layers[name].weight.shape, option, seed)
        for seed, (name, option) in enumerate(options.items())
        if option.sparsity > 0 and not option.removes
    }
    cut = with_outer(random_cut(prepared.model, prepared.couplings, options), outer)
    return deploy(work, cut, masks, options, predicted_ms, dense_ms).measured_ms


def plan_within(
    work: Work,
    curves: CurveSet,
    budgets: Sequence[Budget],
    choose: Callable[[Sequence[Budget]], Allocation],
    start: Sequence[Budget] | None = None,
) -> tuple[Allocation, list[Budget], list[dict[str, float]]]:
    """Plan; where time is budgeted and can be measured here, time the plan and correct the budget by what it missed.

    Parameters
    ----------
    work
        The model, and how it will be used.
    curves
        With latency.
    budgets
        All that must hold.
    choose
        Plans under given budgets.
    start
        What the first plan is made under, where another planner's plans were timed before; the budgets themselves by
        default.

    Returns
    -------
    Allocation
        The plan.
    list of Budget
        What it was planned under: the latency as corrected, for other methods to be held to.
    list of dict
        ``predicted`` and ``measured`` milliseconds of every plan that was timed.
    """
    start = budgets if start is None else start
    allocation = choose(start)
    wanted = next((b for b in budgets if b.metric == "latency"), None)
    changed = allocation.choice.any() or outer_of(curves)
    if wanted is None or not changed or not measured_here(curves):
        return allocation, list(start), []
    limit, under = wanted.limit(curves), list(start)
    timed: list[tuple[Allocation, list[Budget]]] = []
    tried: list[dict[str, float]] = []
    within: tuple[Allocation, list[Budget]] | None = None
    with work.progress.stage("time plans", _ROUNDS) as stage:
        for _ in range(_ROUNDS):
            predicted = allocation.cost["latency"]
            options, outer = chosen_options(curves, allocation.choice), outer_of(curves)
            measured = trial_ms(work, options, predicted, curves.dense("latency"), outer, limit)
            tried.append({"predicted": predicted, "measured": measured})
            timed.append((allocation, under))
            stage.advance(1, f"{measured:.2f} ms of {limit:.2f} ms")
            if measured <= limit and (within is None or allocation.distortion < within[0].distortion):
                within = (allocation, under)
            if _CLOSE * limit <= measured <= _AIM * limit + 1e-9 or len(tried) == _ROUNDS:
                break
            corrected = _next_budget(tried, limit)
            if corrected >= curves.dense("latency"):
                break
            under = [*(b for b in budgets if b.metric != "latency"), Budget("latency", corrected, False)]
            before = allocation.choice
            try:
                allocation = choose(under)
            except FewerError:
                break
            if np.array_equal(allocation.choice, before):
                break
    if within is None:  # what costs more and gains no time is no better
        enough = _AS_QUICK * min(t["measured"] for t in tried)
        quick = [plan for plan, t in zip(timed, tried, strict=True) if t["measured"] <= enough]
        within = min(quick, key=lambda plan: plan[0].distortion)
    return *within, tried


def foretold(tried: Sequence[Mapping[str, float]], predicted: float) -> float:
    """Milliseconds to expect of a plan, given others that were timed.

    The times of layers add up to more or less than the whole takes, as runtimes join layers and caches stay warm. A
    plan nearby shares most of that, so what the last other plan took of its own sum is taken of this one too.

    Parameters
    ----------
    tried
        ``predicted`` (the sum over layers) and ``measured`` milliseconds of timed plans, the last one last.
    predicted
        The sum over layers of this plan.

    Examples
    --------
    >>> foretold([{"predicted": 30.0, "measured": 15.0}, {"predicted": 50.0, "measured": 26.0}], 50.0)
    25.0
    >>> foretold([{"predicted": 50.0, "measured": 26.0}], 50.0)
    50.0
    """
    others = [t for t in tried if not math.isclose(t["predicted"], predicted) and t["predicted"] > 0]
    return predicted * others[-1]["measured"] / others[-1]["predicted"] if others else predicted


def _next_budget(tried: Sequence[Mapping[str, float]], limit: float) -> float:
    """What to plan for next, from the plans that were timed.

    Between one that was too slow and one that was not, the line through both; beside them, what was predicted wrongly
    by a factor will be so again for a plan nearby.

    Examples
    --------
    >>> _next_budget([{"predicted": 10.0, "measured": 12.0}], 10.0) < 10.0 / 1.2
    True
    >>> rows = [{"predicted": 10.0, "measured": 12.0}, {"predicted": 6.0, "measured": 8.0}]
    >>> round(_next_budget(rows, 10.0), 2)
    7.85
    """
    aim = _AIM * limit
    slow = min((t for t in tried if t["measured"] > aim), key=lambda t: t["measured"], default=None)
    quick = max((t for t in tried if t["measured"] <= aim), key=lambda t: t["measured"], default=None)
    if slow is not None and quick is not None and slow["predicted"] > quick["predicted"]:
        part = (aim - quick["measured"]) / (slow["measured"] - quick["measured"])
        return quick["predicted"] + part * (slow["predicted"] - quick["predicted"])
    last = tried[-1]
    return max(aim / last["measured"], _STEP) * last["predicted"]


def chosen_options(curves: CurveSet, choice: np.ndarray) -> dict[str, Option]:
    """The option of each unit."""
    return {c.unit.name: c.options[k] for c, k in zip(curves.curves, choice, strict=True)}
