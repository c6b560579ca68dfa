"""Report: measure a compressed model on held-out images beside simpler methods, and write everything down."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.allocate import Allocation
from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.core.plan import Plan
from fewer.core.power import power_shares
from fewer.cost.stopwatch import NOISY
from fewer.presets import preset_names
from fewer.report import RunReport, environment
from fewer.tasks import Quality
from fewer.verbs.applying import apply_options
from fewer.verbs.contest import Made
from fewer.verbs.curves import Sensed, resolved
from fewer.verbs.deploying import Deployed
from fewer.verbs.evaluate import Judge
from fewer.verbs.evaluate import Quality as Likeness
from fewer.verbs.labelled import labelled_rows
from fewer.verbs.planning import Assembly, choose, frontier_of, random_choices, rank_correlation
from fewer.verbs.prepare import Prepared
from fewer.verbs.progress import Progress
from fewer.verbs.rivals import preset_of, rival_model, rival_settings, same_method
from fewer.verbs.settings import Settings
from fewer.verbs.shrinking import Shrunk

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
    "auto:uniform": "fewer (chose uniform)",
    "auto:erk": "fewer (chose ERK)",
    "auto:lamp": "fewer (chose LAMP)",
}
UNITS_OF_MEASURE = {
    "weights": "weights",
    "flops": "FLOPs",
    "macs": "MACs",
    "size": "bytes",
    "latency": "ms",
    "energy": "J",
}
LABEL_OF = {
    "weights": "kept weights",
    "flops": "FLOPs",
    "macs": "MACs",
    "size": "file size",
    "latency": "predicted latency",
    "energy": "modelled energy",
}
FRONTIER = tuple(round(0.95 - 0.05 * i, 2) for i in range(18))
MEASURED_AT = (0.9, 0.7, 0.5, 0.35, 0.2)
# a frontier shows a shape; so many held-out images are enough for it
_FEW = 16
# less than this share of improvement is not worth a plan that is no longer the exact optimum of its curves
_WORTH = 0.01


@dataclass(eq=False)
class Evidence:
    """Everything that a run knows when its model is made."""

    prepared: Prepared
    settings: Settings
    sensed: Sensed
    plan: Plan
    allocation: Allocation
    model: nn.Module
    masks: dict[str, Tensor]
    budgets: Sequence[Budget]
    timings: dict[str, float]
    search: dict[str, Any] | None
    command: str | None
    quality: Quality | None = None
    tried: list[dict[str, float]] = field(default_factory=list)
    deployed: Deployed | None = None
    under: Sequence[Budget] = ()
    contest: list[dict[str, Any]] = field(default_factory=list)
    made: dict[bytes, Made] = field(default_factory=dict)
    shrunk: Shrunk | None = None


def search_facts(before: float, after: float, evaluations: int, seconds: float) -> dict[str, Any]:
    """What local search gained on images that it did not see, and whether that is worth keeping."""
    kept = bool(after < before * (1 - _WORTH))
    return {"kept": kept, "before": before, "after": after, "evaluations": evaluations, "seconds": seconds}


def gather(evidence: Evidence, assembly: Assembly | None, progress: Progress) -> RunReport:
    """Measure and fill in the report."""
    e, prepared = evidence, evidence.prepared
    began = perf_counter()
    judge = Judge(
        prepared.model,
        prepared.heldout,
        batch=max(8, e.settings.batch),
        forward=prepared.forward,
        task=prepared.loaded.task,
    )
    with progress.stage("evaluate", None) as stage:
        # what will be used is judged: rounded activations included, where there are kernels that round them
        used = e.deployed.model if e.deployed is not None else e.model
        quality = judge.judge(used)
        labelled = dict(e.quality(used)) if e.quality is not None else {}
        before = dict(e.quality(prepared.model)) if e.quality is not None else {}
        stage.advance()
    reached = _reached(e)
    verdict = {
        "met": all(r["reached"] <= r["limit"] * (1 + 1e-6) for r in reached),
        "budgets": reached,
        "distortion": quality.distortion,
        "quality": [
            {
                "name": quality.name,
                "value": quality.value,
                "dense": 1.0,
                "note": f"on {len(prepared.heldout)} held-out images",
            },
            *labelled_rows(e.quality, before, labelled),
        ],
    }
    ready = e.made.get(e.allocation.choice.tobytes())
    took = ready.seconds if ready is not None else e.timings.get("apply", 0.0)
    name = preset_of(e.settings) or e.plan.method
    ours = row_of(name, e.plan.method.startswith(("dp", "auto")), quality, took, e.settings, labelled)
    rows = [ours, *_without_merging(e, judge, progress), *_baselines(e, judge, assembly, progress)]
    report: dict[str, Any] = {
        "seed": e.settings.seed,
        "command": e.command or "",
        "verdict": verdict,
        "model": {
            "name": prepared.loaded.name,
            "parameters": float(prepared.parameters),
            "source_bytes": float(e.plan.dense["size"]),
        },
        "data": {
            "calibration": len(prepared.calibration),
            "heldout": len(prepared.heldout),
            "source": prepared.source,
            "skipped": [{"file": f, "reason": r} for f, r in prepared.skipped],
            "note": " ".join(prepared.notes),
        },
        "settings": _flat(e.settings),
        "baselines": rows,
        "units": _units(e),
        "skipped": [{"name": s.name, "kind": s.kind, "reason": s.reason} for s in prepared.matched.skipped],
        "curves": _curves(e),
        "sensing": _sensing(e),
    }
    if e.deployed is not None:
        report["latency"] = _latency(e, e.deployed)
        verdict["quality"].append(
            {
                "name": "latency in ms",
                "value": e.deployed.measured_ms,
                "dense": e.deployed.dense_ms,
                "higher_is_better": False,
                "note": f"predicted {e.deployed.predicted_ms:.2f} ms; batch {e.settings.deploy_batch}",
            }
        )
    if tokens := e.sensed.curves.meta.get("tokens"):
        verdict["quality"].append(_tokens(tokens))
    if e.settings.power:
        verdict["quality"].append(_power(e))
    if assembly is not None:
        report["frontier"] = _frontier(e, assembly, progress)
        report["additivity"] = _additivity(e, assembly, progress)
    if len(e.contest) > 1:
        report["contest"] = [
            {**row, "label": LABELS[row["name"]], "chosen": row["name"] == e.plan.method.split(":")[-1].split("+")[0]}
            for row in e.contest
        ]
    if e.search is not None:
        report["search"] = _search(e, assembly, judge)
    e.timings["evaluate"] = e.timings.get("evaluate", 0.0) + perf_counter() - began
    report["timings"] = dict(e.timings)
    report["peak_memory_bytes"] = float(_peak_memory())
    report["environment"] = environment(threads=torch.get_num_threads())
    report["limits"] = _limits(e)
    return RunReport.from_dict(report)


def row_of(
    name: str, ours: bool, quality: Likeness, seconds: float, settings: Settings, labelled: Mapping[str, float]
) -> dict[str, Any]:
    """One row of the comparison."""
    return {
        "name": name,
        "label": LABELS.get(name, name),
        "ours": ours,
        "distortion": quality.distortion,
        "quality": {quality.name: quality.value, **labelled},
        "seconds": seconds,
        "compensated": settings.compensation == "obs",
    }


def _reached(e: Evidence) -> list[dict[str, Any]]:
    fixed = e.sensed.curves.fixed
    totals = {"weights": 0.0, "macs": fixed["macs"], "flops": fixed["flops"]}
    for unit in e.sensed.curves.units:
        kept = float(e.masks[unit.name].sum())
        totals["weights"] += kept
        totals["macs"] += kept * unit.positions
        totals["flops"] += 2 * kept * unit.positions
    positions = {u.name: u.positions for u in e.prepared.matched.units}
    for unit in e.sensed.curves.units:
        # attention's own products, with the heads that stay, on the tokens that are left
        macs = e.prepared.couplings.between.get(unit.name, 0.0) * (unit.positions / positions[unit.name]) ** 2
        left = float(e.masks[unit.name].flatten(1).any(0).double().mean()) if macs else 0.0
        totals["macs"] += left * macs
        totals["flops"] += 2 * left * macs
    totals["size"] = e.plan.cost["size"]  # replaced by the file's real size once it is written
    for metric in ("latency", "energy"):
        if metric in e.plan.cost:
            totals[metric] = e.plan.cost[metric]
    if e.deployed is not None:
        totals["latency"] = e.deployed.measured_ms
    curves = e.sensed.curves
    return [
        {
            "budget": str(b),
            "metric": b.metric,
            "limit": float(b.limit(curves)),
            "dense": curves.dense(b.metric),
            "reached": totals[b.metric],
            "unit": UNITS_OF_MEASURE[b.metric],
        }
        for b in e.budgets
    ]


def _baselines(e: Evidence, judge: Judge, assembly: Assembly | None, progress: Progress) -> list[dict[str, Any]]:
    """Simpler allocators at the same budget, through the very same repair; and whole methods, by their preset."""
    rows = []
    for name in e.settings.baselines:
        if name in preset_names():
            rows += _preset_row(e, name, judge, assembly, progress)
            continue
        # what the contest chose is our row, and would be the same model again
        if name in (e.plan.method, e.plan.method.removeprefix("auto:")):
            continue
        try:
            allocation = choose(e.sensed.curves, e.under or e.budgets, name)
        except FewerError:  # a rule with one free parameter cannot meet every pair of budgets
            continue
        ready = e.made.get(allocation.choice.tobytes())
        if ready is not None:
            model, took = ready.model, ready.seconds
        else:
            began = perf_counter()
            chosen = {
                u.name: e.sensed.options[u.name][k]
                for u, k in zip(e.sensed.curves.units, allocation.choice, strict=True)
            }
            model, _ = apply_options(
                e.prepared,
                e.settings,
                e.sensed.options,
                chosen,
                tokens=e.sensed.curves.meta.get("tokens"),
                progress=progress,
                title=f"baseline {LABELS.get(name, name)}",
            )
            took = perf_counter() - began
        labelled = e.quality(model) if e.quality is not None else {}
        rows.append(row_of(name, False, judge.judge(model), took, e.settings, labelled))
    return rows


def _without_merging(e: Evidence, judge: Judge, progress: Progress) -> list[dict[str, Any]]:
    """Where tokens are merged: the same budget met by weights alone."""
    plain = e.sensed.plain
    if plain is None:
        return []
    try:
        allocation = choose(plain, e.under or e.budgets, e.settings.allocator, power=e.settings.power)
    except FewerError:  # weights alone do not go as low
        return []
    began, label = perf_counter(), "fewer, no token merged"
    chosen = {u.name: e.sensed.options[u.name][k] for u, k in zip(plain.units, allocation.choice, strict=True)}
    model, _ = apply_options(e.prepared, e.settings, e.sensed.options, chosen, progress=progress, title=label)
    labelled = e.quality(model) if e.quality is not None else {}
    row = row_of("no-merging", True, judge.judge(model), perf_counter() - began, e.settings, labelled)
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
        model, _ = rival_model(e.prepared, settings, e.under or e.budgets, store, progress, f"baseline {label}")
    except FewerError:  # its options may not go as low
        return []
    labelled = e.quality(model) if e.quality is not None else {}
    row = row_of(name, name == "default", judge.judge(model), perf_counter() - began, settings, labelled)
    return [{**row, "label": label}]


def _units(e: Evidence) -> list[dict[str, Any]]:
    rows = []
    planned = e.plan.options()
    for curve, k in zip(e.sensed.curves.curves, e.allocation.choice, strict=True):
        unit, mask = curve.unit, e.masks[curve.unit.name]
        kept = float(mask.sum())
        option = planned[unit.name]
        rows.append(
            {
                "name": unit.name,
                "kind": unit.kind,
                "shape": list(unit.shape),
                "option": str(option),
                "pattern": option.pattern,
                "sparsity": 1 - kept / unit.numel,
                "precision": option.precision,
                "kept_weights": kept,
                "weights": float(unit.numel),
                "flops": 2 * kept * unit.positions,
                "dense_flops": 2 * unit.macs,
                "distortion": float(curve.distortion[k]),
            }
        )
    return rows


def _curves(e: Evidence) -> list[dict[str, Any]]:
    rows = []
    for c, k in zip(e.sensed.curves.curves, e.allocation.choice, strict=True):
        # of several patterns and precisions the one that was chosen, or the first: one curve is what a plot can show
        cut = [o for o in c.options if not o.is_dense]
        like = c.options[k] if not c.options[k].is_dense or not cut else cut[0]
        keep = [
            i
            for i, o in enumerate(c.options)
            if i in (0, k) or (o.family, o.precision) == (like.family, like.precision)
        ]
        keep.sort(key=lambda i: (c.options[i].sparsity, i))
        rows.append(
            {
                "unit": c.unit.name,
                "sparsity": [c.options[i].sparsity for i in keep],
                "distortion": [float(c.distortion[i]) for i in keep],
                "chosen": keep.index(int(k)),
            }
        )
    return rows


def _latency(e: Evidence, deployed: Deployed) -> dict[str, Any]:
    facts = e.sensed.curves.meta["device"]
    return {
        "dense_ms": deployed.dense_ms,
        "predicted_ms": deployed.predicted_ms,
        "measured_ms": deployed.measured_ms,
        "spread": deployed.spread,
        "batch": e.settings.deploy_batch,
        "threads": facts["device"]["threads"],
        "device": str(facts["device"]["cpu"]),
        "plans": [[t["predicted"], t["measured"]] for t in e.tried],
        "layers": [
            {
                "name": row.name,
                "kind": row.kind,
                "backend": row.backend,
                "precision": row.precision,
                "before_ms": None if math.isnan(row.ms_before) else row.ms_before,
                "after_ms": None if math.isnan(row.ms_after) else row.ms_after,
                "reason": row.reason,
            }
            for row in deployed.layers
        ],
    }


def _tokens(tokens: Mapping[str, Any]) -> dict[str, Any]:
    """How many tokens are left in the last block."""
    whole = tokens["tokens"]
    return {
        "name": "tokens in the last block",
        "value": whole - sum(tokens["amounts"].values()),
        "dense": whole,
        "higher_is_better": False,
        "note": f"schedule '{tokens['name']}', of {len(tokens['tried'])} tried; merging alone: distortion "
        f"{tokens['harm']:.3g} on the images that harm is measured on",
    }


def _power(e: Evidence) -> dict[str, Any]:
    """What the plan leaves of the power term."""
    curves = e.sensed.curves
    drawn = sum(float(p[k]) for p, k in zip(power_shares(curves), e.allocation.choice, strict=True))
    kind = "modelled energy" if "energy" in curves.metrics else "LPViT's linear count, not a measurement"
    return {"name": "power term", "value": drawn, "dense": 1.0, "higher_is_better": False, "note": kind}


def _frontier(e: Evidence, assembly: Assembly, progress: Progress) -> dict[str, Any]:
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
    baseline = []
    few = Judge(e.prepared.model, e.prepared.heldout[:_FEW], forward=e.prepared.forward, task=e.prepared.loaded.task)
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
                baseline.append({"budget": share, "cost": simple.cost[metric] / dense, "measured": measured})
    label = LABEL_OF[metric]
    return {
        "metric": metric,
        "label": f"{label} (each layer repaired on its own, {len(few.first)} held-out images)",
        "ours": points,
        "baselines": {LABELS[rival]: baseline} if rival is not None else {},
    }


def _additivity(e: Evidence, assembly: Assembly, progress: Progress) -> dict[str, Any] | None:
    if e.settings.additivity == 0 or not e.allocation.choice.any():
        return None
    curves, sensed = e.sensed.curves, e.sensed
    choices = [e.allocation.choice, *random_choices(curves, e.settings.additivity, e.settings.seed)]
    points = []
    with progress.stage("additivity", len(choices)) as stage:
        for choice in choices:
            points.append((curves.harm(choice), assembly.distortion(choice, sensed.batches, sensed.reference)))
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


def _search(e: Evidence, assembly: Assembly | None, judge: Judge) -> dict[str, Any]:
    assert e.search is not None
    facts = dict(e.search)
    if assembly is not None and facts["kept"]:
        start = choose(e.sensed.curves, e.budgets, "dp")
        before, after = (
            assembly.evaluate(c, lambda m: judge.judge(m).distortion) for c in (start.choice, e.allocation.choice)
        )
        facts["note"] = f"On held-out images: {before:.4g} before, {after:.4g} after."
    return facts


def _sensing(e: Evidence) -> dict[str, Any]:
    facts, curves = e.sensed.facts, e.sensed.curves
    options = sum(len(c.options) - 1 for c in curves.curves)
    whole = facts.get("whole", "")
    return {
        "forwards": float(facts["passes"]),
        "paper_forwards": float(101 * len(curves) * e.prepared.apart[0]),
        "seconds": facts["seconds"],
        "note": f"{e.settings.estimator}: {options} options of {len(curves)} layers on {e.prepared.apart[0]} images; "
        "passes are of one image, forward or backward, and may start at the changed layer. The paper's number is that "
        "of 101 ratios for each layer and image."
        + (f" Passes ran through the whole model, because {whole}." if whole else ""),
    }


def _flat(settings: Settings) -> dict[str, Any]:
    values = settings.model_dump(mode="json")
    return {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in values.items()}


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _limits(e: Evidence) -> list[str]:
    unlabelled = "" if e.quality is not None else ": accuracy on your task was not measured"
    limits = [
        f"Distortion and {'agreement' if e.prepared.loaded.task == 'classify' else 'similarity'} are against the dense "
        f"model, without labels{unlabelled}.",
        f"Held-out numbers come from {len(e.prepared.heldout)} images of the same source as the calibration images.",
    ]
    if e.deployed is None:
        limits.append("Fewer weights are not faster by themselves: no time was measured here.")
    elif e.deployed.spread > NOISY:
        limits.append("The machine was busy while the model was timed: the spread of its latency is wide.")
    if "energy" in e.plan.cost:
        limits.append(f"Energy is not measured: it is {e.sensed.curves.meta['device']['energy']}.")
    if warning := e.sensed.curves.meta.get("device", {}).get("warning"):
        limits.append(f"Times are predicted, not measured: {warning}.")
    if e.shrunk is not None:
        limits += [f"The channels removed before {n} stay as zeros: {why}." for n, why in e.shrunk.refused.items()]
    if e.settings.data_free is not None:
        limits.append("The model was calibrated without real images.")
    if len(e.prepared.calibration) < 16:
        limits.append("Very few calibration images: repaired weights may not fit other images.")
    return limits
