"""The comparison: rivals under the same budget, and predictions held against what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from fewer.compensate.published import PUBLISHED
from fewer.core.allocation.baselines import BASELINES
from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.progress import Progress
from fewer.engine.apply import apply_options
from fewer.engine.as_used import model_in_use
from fewer.engine.assembly import Assembly
from fewer.engine.judge import Judge, Quality, judge_of
from fewer.engine.outer import outer_of
from fewer.engine.plan import choose, frontier_of
from fewer.engine.published import prune_as_published
from fewer.engine.rivals import rival_model, rival_settings, same_method
from fewer.engine.sense import resolved
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.presets import preset_names

if TYPE_CHECKING:
    from fewer.engine.evidence import Evidence

__all__ = [
    "LABELS",
    "additivity",
    "baselines",
    "frontier",
    "random_choices",
    "rank_correlation",
    "row_of",
    "search",
    "without_merging",
]

LABELS = {
    "uniform": "Uniform",
    "uniform_plus": "Uniform+",
    "erk": "ERK",
    "lamp": "LAMP",
    "global_magnitude": "Global magnitude",
    "dp": "fewer (exact DP)",
    "dp+search": "fewer (DP + local search)",
    "default": "fewer (preset default)",
    "lpvit": "LPViT (preset lpvit)",
    "sparsegpt": "SparseGPT, uniform",
    "wanda": "Wanda, uniform",
    "bold": "fewer (exact DP, bold)",
    "magnitude": "Global magnitude, no repair",
    "rebalanced": "Global magnitude, means and BatchNorm corrected",
    "unrepaired": "fewer (exact DP), no repair",
    "bare_lamp": "LAMP, no repair",
    "mean_lamp": "fewer (halfway from the exact DP to LAMP)",
    "mean_erk": "fewer (halfway from the exact DP to ERK)",
    "mean_uniform": "fewer (halfway from the exact DP to uniform)",
    "auto:mean_lamp": "fewer (halfway to LAMP)",
    "auto:mean_erk": "fewer (halfway to ERK)",
    "auto:mean_uniform": "fewer (halfway to uniform)",
    "auto:bold": "fewer (exact DP, bold)",
    "auto:magnitude": "fewer (chose global magnitude, no repair)",
    "auto:rebalanced": "fewer (chose global magnitude, means corrected)",
    "auto:unrepaired": "fewer (exact DP, no repair)",
    "auto:bare_lamp": "fewer (chose LAMP, no repair)",
    "auto:uniform": "fewer (chose uniform)",
    "auto:erk": "fewer (chose ERK)",
    "auto:lamp": "fewer (chose LAMP)",
    "auto:uniform_plus": "fewer (chose Uniform+)",
    "auto:global_magnitude": "fewer (chose global magnitude)",
}
LABEL_OF = {
    "weights": "kept weights",
    "flops": "FLOPs",
    "macs": "MACs",
    "size": "file size",
    "latency": "predicted latency",
    "energy": "modelled energy",
    "cycles": "modelled cycles",
}
FRONTIER = tuple(round(0.95 - 0.05 * i, 2) for i in range(18))
MEASURED_AT = (0.9, 0.7, 0.5, 0.35, 0.2)
# a frontier shows a shape; so many held-out images are enough for it
_FEW = 16


def row_of(
    name: str, ours: bool, quality: Quality, seconds: float, settings: Settings, labelled: Mapping[str, float]
) -> dict[str, Any]:
    """One row of the comparison."""
    repaired = settings.compensation == "obs"
    # a simple plan profits from the very repair that ours has, and the row must not look like the method of a paper
    label = LABELS.get(name, name) + (" with our repair" if name in BASELINES and repaired else "")
    return {
        "name": name,
        "label": label,
        "ours": ours,
        "distortion": quality.distortion,
        "quality": {quality.name: quality.value, **labelled},
        "seconds": seconds,
        "compensated": repaired,
    }


class _NoRowError(FewerError):
    """Why a rival has no row."""


def _as_used(
    e: Evidence, model: nn.Module, masks: Mapping[str, Tensor], options: Mapping[str, Option], progress: Progress
) -> nn.Module:
    """A rival as ours is judged: where the plan will run, with the roundings of that runtime or those kernels."""
    try:
        return model_in_use(Work(e.prepared, e.settings, progress), e.sensed.curves, model, masks, options)
    except FewerError as error:
        raise _NoRowError(str(error)) from None


def baselines(
    e: Evidence, judge: Judge, assembly: Assembly | None, progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Simpler allocators at the same budget, through the very same repair; and whole methods, of papers and presets.

    Returns
    -------
    rows, missing
        One row a rival; and those that have none, by their label, with the reason.
    """
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for name in e.settings.baselines:
        try:
            if name in preset_names():
                rows += _preset_row(e, name, judge, assembly, progress)
            elif name in PUBLISHED:
                rows += _published_row(e, name, judge, progress)
            # what the contest chose is our row, and would be the same model again
            elif name not in (e.plan.method, e.plan.method.removeprefix("auto:")):
                rows.append(_simple_row(e, name, judge, progress))
        except _NoRowError as error:
            label = LABELS.get(name, f"preset {name}" if name in preset_names() else name)
            missing[label] = f"{error}{_corrected(e)}"
    return rows, missing


def _corrected(e: Evidence) -> str:
    """That a budget in time is no longer the one that was asked for."""
    if not e.under or list(e.under) == list(e.budgets):
        return ""
    limits = " and ".join(str(budget) for budget in e.budgets)
    return f" (of {limits} so much is left after what the timed plans took beyond their prediction)"


def _simple_row(e: Evidence, name: str, judge: Judge, progress: Progress) -> dict[str, Any]:
    try:
        allocation = choose(e.sensed.curves, e.under or e.budgets, name)
    except FewerError as error:  # a rule with one free parameter cannot meet every budget
        raise _NoRowError(str(error)) from None
    ready = e.made.get(allocation.choice.tobytes())
    if ready is not None:
        model, masks, took = ready.model, ready.masks, ready.seconds
    else:
        began = perf_counter()
        chosen = e.sensed.chosen(allocation.choice)
        model, masks = apply_options(
            Work(e.prepared, e.settings, progress),
            e.sensed.options,
            chosen,
            outer=outer_of(e.sensed.curves),
            title=f"baseline {LABELS.get(name, name)}",
        )
        took = perf_counter() - began
    used = ready.used if ready is not None else None
    if used is None:
        used = _as_used(e, model, masks, e.sensed.chosen(allocation.choice), progress)
    labelled = e.quality(used) if e.quality is not None else {}
    return row_of(name, False, judge.judge(used), took, e.settings, labelled)


_ALONE = {"tokens": "fewer, no token merged", "pixels": "fewer, all pixels", "frames": "fewer, all frames"}


def without_merging(e: Evidence, judge: Judge, progress: Progress) -> list[dict[str, Any]]:
    """Where tokens are merged, images made smaller or frames left out: the same budget met by weights alone."""
    plain = e.sensed.plain
    if plain is None:
        return []
    try:
        allocation = choose(plain, e.under or e.budgets, e.settings.allocator, power=e.settings.power)
    except FewerError:  # weights alone do not go as low
        return []
    began, label = perf_counter(), _ALONE[next(reversed(outer_of(e.sensed.curves)))]
    chosen = e.sensed.chosen(allocation.choice, plain)
    model, masks = apply_options(Work(e.prepared, e.settings, progress), e.sensed.options, chosen, title=label)
    try:
        used = _as_used(e, model, masks, chosen, progress)
    except _NoRowError:
        return []
    labelled = e.quality(used) if e.quality is not None else {}
    row = row_of("no-merging", True, judge.judge(used), perf_counter() - began, e.settings, labelled)
    return [{**row, "label": label}]


def _preset_row(
    e: Evidence, name: str, judge: Judge, assembly: Assembly | None, progress: Progress
) -> list[dict[str, Any]]:
    """What the method of a preset makes under the same budget; nothing where the run has that very method."""
    settings = resolved(e.prepared, rival_settings(name, e.settings))
    if same_method(settings, e.settings):
        return []
    began, label = perf_counter(), LABELS.get(name, f"preset {name}")
    try:
        store = assembly.store if assembly is not None else None
        model, masks, chosen = rival_model(
            Work(e.prepared, settings, progress), e.under or e.budgets, store, f"baseline {label}"
        )
    except FewerError as error:  # its options may not go as low
        raise _NoRowError(str(error)) from None
    used = _as_used(e, model, masks, chosen, progress)
    labelled = e.quality(used) if e.quality is not None else {}
    row = row_of(name, name == "default", judge.judge(used), perf_counter() - began, settings, labelled)
    return [{**row, "label": label}]


def _published_row(e: Evidence, name: str, judge: Judge, progress: Progress) -> list[dict[str, Any]]:
    """What a method of the literature makes with the same share of every layer."""
    if outer := outer_of(e.sensed.curves):  # these are not theirs, and weights alone would miss the budget
        raise _NoRowError(f"it removes weights alone, and this plan has fewer {' and '.join(outer)} too")
    began, work = perf_counter(), Work(e.prepared, e.settings, progress)
    try:
        share = choose(e.sensed.curves, e.under or e.budgets, "uniform")
        chosen = e.sensed.chosen(share.choice)
        model = prune_as_published(work, name, chosen, title=f"baseline {LABELS[name]}")
    except FewerError as error:  # such as channels that are removed, or layers that are rounded
        raise _NoRowError(str(error)) from None
    used = _as_used(e, model, {}, chosen, progress)  # in fp32, so that no kernel rounds anything
    labelled = e.quality(used) if e.quality is not None else {}
    row = row_of(name, False, judge.judge(used), perf_counter() - began, e.settings, labelled)
    return [{**row, "compensated": name == "sparsegpt", "published": True}]


def frontier(e: Evidence, assembly: Assembly, progress: Progress) -> dict[str, Any]:
    metric = e.budgets[0].metric
    curves = e.sensed.curves
    dense = curves.dense(metric)
    plans = frontier_of(curves, metric, FRONTIER, power=e.settings.power)
    points = [
        {"budget": b, "cost": p.cost[metric] / dense, "predicted": p.distortion}
        for b, p in zip(FRONTIER, plans, strict=True)
        if p is not None
    ]
    rival = next((n for n in e.settings.baselines if n in ("uniform", "uniform_plus")), None)
    simpler = []
    few = judge_of(e.prepared, None, e.prepared.heldout[:_FEW])
    with progress.stage("frontier", len(MEASURED_AT)) as stage:
        for share in MEASURED_AT:
            plan = plans[FRONTIER.index(share)]
            stage.advance()
            if plan is None:
                continue
            point = next(p for p in points if p["budget"] == share)
            point["measured"] = assembly.evaluate(plan.choice, lambda m: few.judge(m).distortion)
            if rival is not None:
                try:
                    simple = choose(curves, [Budget(metric, share, True)], rival)
                except FewerError:  # a rule with one free parameter cannot go as low as the plan can
                    continue
                measured = assembly.evaluate(simple.choice, lambda m: few.judge(m).distortion)
                simpler.append({"budget": share, "cost": simple.cost[metric] / dense, "measured": measured})
    label = LABEL_OF[metric]
    return {
        "metric": metric,
        "label": f"{label} (each layer repaired on its own, {len(few)} held-out images)",
        "ours": points,
        "baselines": {LABELS[rival]: simpler} if rival is not None else {},
    }


def additivity(e: Evidence, assembly: Assembly, progress: Progress) -> dict[str, Any] | None:
    if e.settings.additivity == 0 or not e.allocation.choice.any():
        return None
    curves, sensed = e.sensed.curves, e.sensed
    choices = [e.allocation.choice, *random_choices(curves, e.settings.additivity, e.settings.seed)]
    points = []
    with progress.stage("additivity", len(choices)) as stage:
        for choice in choices:
            points.append((curves.distortion(choice), assembly.distortion(choice, sensed.batches, sensed.reference)))
            stage.advance()
    total, joint = points[0]
    return {
        "joint": joint,
        "sum": total,
        "ratio": joint / total if total > 0 else None,
        "spearman": rank_correlation([p[0] for p in points[1:]], [p[1] for p in points[1:]]),
        "points": [list(p) for p in points],
        "note": "The first point is the plan; the others are random plans. Each layer is repaired on its own.",
    }


def search(e: Evidence, assembly: Assembly | None, judge: Judge) -> dict[str, Any]:
    assert e.search is not None
    facts = dict(e.search)
    if assembly is not None and facts["kept"]:
        start = choose(e.sensed.curves, e.budgets, "dp")
        before, after = (
            assembly.evaluate(c, lambda m: judge.judge(m).distortion) for c in (start.choice, e.allocation.choice)
        )
        facts["note"] = f"On held-out images: {before:.4g} before, {after:.4g} after."
    return facts


def random_choices(curves: CurveSet, count: int, seed: int) -> list[np.ndarray]:
    """Random plans around a range of sparsities, for checking that predictions rank plans rightly.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5))
    >>> curve = Curve(Unit("a", "linear", (2, 2)), options, {"weights": [4, 2]}, [0, 1])
    >>> len(random_choices(CurveSet((curve,)), 3, seed=0))
    3
    """
    rng = np.random.default_rng(seed)
    choices = []
    for centre in np.linspace(0.15, 0.7, count):
        wanted = np.clip(rng.normal(centre, 0.15, len(curves)), 0, 1)
        choices.append(np.array([_near(c.options, w, rng) for c, w in zip(curves.curves, wanted, strict=True)]))
    return choices


def _near(options: Sequence[Option], sparsity: float, rng: np.random.Generator) -> int:
    """One of the options nearest in sparsity, at random where patterns or precisions tie."""
    distance = np.array([abs(o.sparsity - sparsity) for o in options])
    nearest = np.flatnonzero(distance == distance.min())
    return int(nearest[0] if len(nearest) == 1 else rng.choice(nearest))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation with average ranks for ties; None for fewer than 3 points or constant values.

    Examples
    --------
    >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    """
    if len(a) < 3:
        return None

    def ranks(x: Sequence[float]) -> np.ndarray:
        values = np.asarray(x, dtype=float)
        return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])

    ra, rb = ranks(a), ranks(b)
    if ra.std() == 0 or rb.std() == 0:
        return None
    return round(float(np.corrcoef(ra, rb)[0, 1]), 12)
