"""The report of a run, gathered from the evidence."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import nn

from fewer.core.progress import Progress
from fewer.engine import comparison, description
from fewer.engine.as_used import model_in_use
from fewer.engine.assembly import Assembly
from fewer.engine.contest import way_of
from fewer.engine.evidence import Evidence
from fewer.engine.judge import Quality as Likeness
from fewer.engine.judge import judge_of
from fewer.engine.quality import interval_of, labelled_rows
from fewer.engine.rivals import preset_of
from fewer.engine.steps import step_rows, steps_of
from fewer.engine.work import Work
from fewer.engine.worst import worst_images
from fewer.reports import RunReport, environment

__all__ = ["gather"]


def _in_use(e: Evidence, progress: Progress) -> nn.Module:
    """The model with what is rounded on the machine that its costs were modelled for."""
    work = Work(e.prepared, e.settings, progress)
    return model_in_use(work, e.sensed.curves, e.model, e.masks, e.plan.options())


def gather(evidence: Evidence, assembly: Assembly | None, progress: Progress) -> RunReport:
    """Measure and fill in the report."""
    e, prepared = evidence, evidence.prepared
    began = perf_counter()
    judge = judge_of(prepared, e.settings, prepared.heldout)
    with progress.stage("evaluate", None) as stage:
        # what will be used is judged: rounded activations included, where there are kernels that round them
        used = e.deployed.model if e.deployed is not None else _in_use(e, progress)
        (found,), changes = judge.judge_each(used, slice(None))
        worst = worst_images(prepared, judge, used, changes)
        labelled = dict(e.quality(used)) if e.quality is not None else {}
        before = dict(e.quality(prepared.model)) if e.quality is not None else {}
        stage.advance()
    ours = _our_row(e, found, labelled)
    rows = [ours, *step_rows(e, judge, progress), *comparison.without_merging(e, judge, progress)]
    steps = steps_of(e, judge, rows)
    rivals, missing = comparison.baselines(e, judge, assembly, progress)
    rows += rivals
    for row in rows:
        ends = {name: interval_of(e.quality, name, value) for name, value in row["quality"].items() if name in before}
        row["intervals"] = {name: ends[name] for name in ends if ends[name] is not None}
    report: dict[str, Any] = {
        "seed": e.settings.seed,
        "command": e.command or "",
        "verdict": _verdict(e, found, judge.outputs, labelled_rows(e.quality, before, labelled)),
        **_origin(e),
        "settings": description.flat(e.settings),
        "worst": worst,
        "baselines": rows,
        "missing": missing,
        "steps": steps,
        "units": description.units(e),
        "skipped": [{"name": s.name, "kind": s.kind, "reason": s.reason} for s in prepared.matched.skipped],
        "curves": description.curves(e),
        "sensing": description.sensing(e),
    }
    if e.deployed is not None:
        report["latency"] = description.latency(e, e.deployed)
    if assembly is not None:
        report["frontier"] = comparison.frontier(e, assembly, progress)
        report["additivity"] = comparison.additivity(e, assembly, progress)
    if e.approximated is not None:
        report["integers"] = [{k: v for k, v in row.items() if k != "joules"} for row in e.approximated.rows]
    if len(e.contest) > 1:
        winner = e.plan.method.split(":")[-1].split("+")[0]
        labels = comparison.LABELS
        report["contest"] = [{**r, "label": labels[r["name"]], "chosen": r["name"] == winner} for r in e.contest]
    if e.search is not None:
        report["search"] = comparison.search(e, assembly, judge)
    e.timings["evaluate"] = e.timings.get("evaluate", 0.0) + perf_counter() - began
    report["timings"] = dict(e.timings)
    report["peak_memory_bytes"] = float(_peak_memory())
    report["environment"] = environment(threads=torch.get_num_threads())
    report["limits"] = [*description.limits(e), *description.steady_words(judge.steady(), found.distortion)]
    report["limits"] += [f"{name} is missing from the comparison: {reason}." for name, reason in missing.items()]
    return RunReport.from_dict(report)


def _our_row(e: Evidence, found: Likeness, labelled: Mapping[str, float]) -> dict[str, Any]:
    """The row of this run in the comparison."""
    ready = e.made.get(way_of(e.plan.method.removeprefix("auto:")).key(e.allocation.choice))
    took = ready.seconds if ready is not None else e.timings.get("apply", 0.0)
    name, planned_by_us = preset_of(e.settings) or e.plan.method, e.plan.method.startswith(("dp", "bold", "auto"))
    return comparison.row_of(name, planned_by_us, found, took, e.settings, labelled)


def _verdict(e: Evidence, found: Likeness, outputs: int, labelled: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether the budgets are met, and what that has cost in quality."""
    reached = description.reached(e)
    first = f", of the first of the model's {outputs} outputs" if outputs > 1 else ""
    likeness = {
        "name": found.name,
        "value": found.value,
        "dense": 1.0,
        "note": f"on {len(e.prepared.heldout)} held-out images{first}",
    }
    quality = [likeness, *labelled]
    if e.deployed is not None:
        quality.append(
            {
                "name": "latency in ms",
                "value": e.deployed.measured_ms,
                "dense": e.deployed.dense_ms,
                "higher_is_better": False,
                "note": (
                    f"predicted {e.deployed.predicted_ms:.2f} ms; batch {e.settings.deploy_batch}"
                    f"{description.runtimes(e.sensed.curves.meta['device'])}"
                ),
            }
        )
    if e.approximated is not None:
        quality.append(description.integers(e.approximated))
    if tokens := e.sensed.curves.meta.get("tokens"):
        quality.append(description.tokens(tokens))
    if pixels := e.sensed.curves.meta.get("pixels"):
        quality.append(description.pixels(pixels))
    if frames := e.sensed.curves.meta.get("frames"):
        quality.append(description.frames(frames))
    if e.settings.power:
        quality.append(description.power(e))
    return {
        "met": all(r["reached"] <= r["limit"] * (1 + 1e-6) for r in reached),
        "budgets": reached,
        "distortion": found.distortion,
        "quality": quality,
    }


def _origin(e: Evidence) -> dict[str, Any]:
    """Which model was compressed, on which inputs."""
    inputs = e.prepared.inputs
    return {
        "model": {
            "name": e.prepared.loaded.name,
            "parameters": float(e.prepared.parameters),
            "source_bytes": float(e.plan.dense["size"]),
        },
        "data": {
            "calibration": len(e.prepared.calibration),
            "heldout": len(e.prepared.heldout),
            "source": inputs.source,
            "skipped": [{"file": f, "reason": r} for f, r in inputs.skipped],
            "note": " ".join(inputs.notes),
        },
    }


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
