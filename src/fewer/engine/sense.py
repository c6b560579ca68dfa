"""Sense: from a prepared model to its curves."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.compensate.moments import collect_moments
from fewer.compensate.sweep import Repair
from fewer.core.budget import Budget
from fewer.core.curve import Curve, CurveSet
from fewer.core.execute import run_tasks
from fewer.core.fingerprint import function_fingerprint
from fewer.core.ledger import Ledger
from fewer.core.memory import keep_freed_memory
from fewer.core.option import Option
from fewer.cost.subjects import runs_as
from fewer.data.samples import Samples
from fewer.distortion.distance import Distance
from fewer.distortion.outputs import reduction
from fewer.distortion.rounding import input_rounding_distortion
from fewer.distortion.sensitivity import output_sensitivity
from fewer.distortion.taylor import rms_gradients
from fewer.engine.device_costs import DeviceCosts, device_costs, refuse_early
from fewer.engine.felt import places_of
from fewer.engine.options import option_costs, unit_options
from fewer.engine.prepare import Prepared
from fewer.engine.sense_task import Estimate, SenseJob, SenseTask, Statistics, probe_seeds
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.models.artefact import state_hash
from fewer.models.layers import find_layers
from fewer.models.running import call, evaluating
from fewer.quantize.qdq import InputRange, input_ranges
from fewer.runtimes.names import EXPORTED

# settings that change what is sensed; the others do not invalidate finished tasks
_SENSED_BY = (
    "pattern",
    "sparsities",
    "estimator",
    "distance",
    "compensation",
    "score",
    "damping",
    "probes",
    "batch",
    "sensing",
    "seed",
)
_RESULTS = 4
"""Of what a finished task says. One more when that changes, so that no ledger of before is gone on with."""


@dataclass(frozen=True, eq=False)
class Sensed:
    """Curves, and what the next steps need of how they were made."""

    curves: CurveSet
    options: dict[str, tuple[Option, ...]]
    batches: Sequence[Samples]
    reference: Distance | None
    facts: dict[str, Any]
    plain: CurveSet | None = None  # where tokens are merged: the curves without that

    def chosen(self, choice: Iterable[int], curves: CurveSet | None = None) -> dict[str, Option]:
        """The option of every unit, from the indices of a plan; ``curves`` are those that were planned with."""
        units = (self.curves if curves is None else curves).units
        return {unit.name: self.options[unit.name][k] for unit, k in zip(units, choice, strict=True)}


def repair_of(settings: Settings) -> Repair:
    """The part of the settings that says how a layer is cut and repaired."""
    return Repair(settings.compensation, settings.score, settings.damping)


_HIDDEN = 0.05
"""Share of a layer's outputs that an activation may hide before rows are cut as equals."""
# multiply-accumulates up to which distortion is measured by default; about a minute on two cores
_CHEAP_MACS = 2e12


def resolved(prepared: Prepared, settings: Settings) -> Settings:
    """Settings with ``estimator="auto"`` decided: measured if every option of every unit can be tried cheaply."""
    if settings.estimator != "auto":
        return settings
    if not prepared.conduct.differentiable:
        return settings.model_copy(update={"estimator": "measured"})
    units = prepared.matched.units
    offered = unit_options(units, settings, prepared.couplings.links, prepared.stored)
    options = sum(o.removes != "rows" for ladder in offered.values() for o in ladder[1:])  # rows are not tried
    macs = prepared.fixed["macs"] + sum(u.macs for u in units)
    cheap = options * settings.sensing * macs / 2 <= _CHEAP_MACS
    return settings.model_copy(update={"estimator": "measured" if cheap else "taylor"})


@keep_freed_memory()
def sense_curves(
    work: Work,
    *,
    model: nn.Module | None = None,
    alive: Mapping[str, Tensor] | None = None,
    ledger_path: Path | None = None,
    store: Path | None = None,
    budgets: Sequence[Budget] = (),
    share: float = 1.0,
) -> Sensed:
    """Measure or estimate the distortion of every option of every unit.

    Parameters
    ----------
    work
        Model, units and images, and how distortion is found out.
    model
        The model of an earlier round; the original by default.
    alive
        Masks of that round.
    ledger_path
        Where finished tasks are kept.
    store
        Folder for the repaired weights of every option.
    budgets
        Those in time or energy are refused before anything is sensed, where no plan can meet them.
    share
        What smaller images may leave of the work of every layer.
    """
    work = work.under(resolved(work.prepared, work.settings))
    prepared, settings = work.prepared, work.settings
    subject = model if model is not None else prepared.model
    units = prepared.matched.units
    device, options = device_costs(work, unit_options(units, settings, prepared.couplings.links, prepared.stored))
    refuse_early(device, budgets, share)
    batches = sensing_batches(work)
    workers = 1 if settings.backend == "serial" else settings.workers or os.cpu_count() or 1
    started = perf_counter()
    reference, statistics, base = _statistics(work, subject, batches)
    prepared_seconds = perf_counter() - started
    job = SenseJob(
        model=subject,
        units=units,
        options=options,
        batches=batches,
        reference=reference,
        statistics=statistics,
        repair=repair_of(settings),
        estimate=Estimate(settings.estimator, settings.probes, settings.seed),
        alive=dict(alive or {}),
        forward=prepared.forward,
        store=store,
        threads=1 if workers > 1 else None,
    )
    tasks = job.tasks(settings.shards)
    ledger = Ledger(ledger_path, _work_key(work, subject, alive, options))
    resumed = _run_open(work, job, tasks, ledger, workers)
    noise = _input_noise(work, subject, ledger)
    curves = _assemble(work, options, tasks, ledger.results, base, noise, device)
    results = [ledger.results[str(t)] for t in tasks]
    facts = {
        "passes": int(sum(r["passes"] for r in results)),
        "seconds": perf_counter() - started,
        "statistics_seconds": prepared_seconds,
        "task_seconds": float(sum(r["seconds"] for r in results)),
        "resumed": resumed,
        "whole": next((r["note"] for r in results if r.get("note")), ""),
    }
    return Sensed(curves, options, batches, reference, facts)


def _statistics(
    work: Work, subject: nn.Module, batches: Sequence[Samples]
) -> tuple[Distance, Statistics, Tensor | None]:
    """The dense outputs, what is known of the layers, and the distortion of earlier rounds, if there were any."""
    prepared = work.prepared
    with work.progress.stage("statistics", None) as stage, evaluating(prepared.model):
        reference = prepared.reference(batches)
        split = prepared.repair_images.split(max(1, work.settings.batch))
        moments = collect_moments(
            subject,
            {u.name: [subject.get_submodule(n) for n in (u.name, *u.aliases)] for u in prepared.matched.units},
            split,
            lambda m, b: call(m, b, prepared.forward),
            places_of(prepared, work.settings, range(prepared.apart[1], len(prepared.calibration)), split),
        )
        stage.advance()
        gradients = score_gradients(work, subject, batches, reference)
        sensitivity, weighing = row_sensitivity(work, subject)
        base = None
        if subject is not prepared.model:
            base = torch.cat([reference.change(i, call(subject, b, prepared.forward)) for i, b in enumerate(batches)])
    return reference, Statistics(moments, gradients, sensitivity, weighing), base


def _run_open(work: Work, job: SenseJob, tasks: Sequence[SenseTask], ledger: Ledger, workers: int) -> int:
    """Do what the ledger does not have, and give the number of tasks that it had."""
    open_tasks = [t for t in tasks if str(t) not in ledger or (t.store and not _stored(job, t))]
    threads = torch.get_num_threads()
    try:
        with work.progress.stage("sense", len(tasks)) as stage:
            stage.advance(len(tasks) - len(open_tasks))
            for task, result in run_tasks(job, open_tasks, backend=work.settings.backend, workers=workers):
                ledger.add(str(task), result)
                stage.advance(1, task.unit)
    finally:
        torch.set_num_threads(threads)  # workers in threads of this process set their own
    return len(tasks) - len(open_tasks)


def score_gradients(work: Work, model: nn.Module, batches: Sequence[Samples], reference: Distance) -> dict[str, Tensor]:
    """Gradients that the score ``taylor`` ranks weights with, by unit name; none for other scores."""
    prepared, settings = work.prepared, work.settings
    if settings.score != "taylor":
        return {}
    twin = set_evaluating(copied_module(model))
    layers = find_layers(twin, prepared.matched.units, batches[0][:1], prepared.forward)
    return rms_gradients(
        twin,
        list(layers.values()),
        batches,
        prepared.forward,
        probes=settings.probes,
        seeds=probe_seeds(settings.seed, 0, len(batches)),
        reference=reference,
    )


def row_sensitivity(work: Work, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """How much the output feels each row of each unit, for the score ``obs``; none for other scores.

    One image at a time, so that what is cut does not depend on the size of a batch.

    Returns
    -------
    dict of str to Tensor
        Of every unit.
    dict of str to Tensor
        Of those units alone whose score it weighs: no activation hides their outputs.
    """
    prepared = work.prepared
    if work.settings.score != "obs" or not prepared.conduct.differentiable:
        return {}, {}
    original = model is prepared.model
    if original and "sensitivity" in prepared.shared:
        return prepared.shared["sensitivity"]
    twin = set_evaluating(copied_module(model))
    batches = prepared.sensing_images.split(1)
    layers = find_layers(twin, prepared.matched.units, batches[0], prepared.forward)
    hidden: dict[str, float] = {}
    found = output_sensitivity(
        twin,
        list(layers.values()),
        batches,
        prepared.forward,
        seeds=probe_seeds(work.settings.seed, 0, len(batches)),
        reference=prepared.reference(batches, twin),
        hidden=hidden,
    )
    # where a distance tells places apart, most of what is hidden lies where nothing counts
    limit = 1.0 if getattr(prepared.distance, "tells_places", False) else _HIDDEN
    both = found, {name: rows for name, rows in found.items() if hidden[name] <= limit}
    if original:
        prepared.shared["sensitivity"] = both
    return both


def sensing_batches(work: Work) -> list[Samples]:
    """The images that distortion is measured on, in batches.

    One image each for the Taylor estimate: a random direction then stands for one image instead of for the sum of
    several, so that the same number of passes gives as many more independent draws.
    """
    return work.prepared.sensing_images.split(1 if work.settings.estimator == "taylor" else work.settings.batch)


def _stored(job: SenseJob, task: SenseTask) -> bool:
    index = next(i for i, u in enumerate(job.units) if u.name == task.unit)
    return job.store is not None and (job.store / f"{index}.safetensors").exists()


_NOISE_IMAGES, _RANGE_IMAGES = 4, 32


def _input_noise(work: Work, model: nn.Module, ledger: Ledger) -> dict[str, dict[str, float]]:
    """Distortion of rounding each unit's input, by precision; kept in the ledger. Few images tell it well."""
    prepared, settings = work.prepared, work.settings
    kinds = {runs_as(precision) for precision in settings.precisions}
    wanted = [p for p in ("bf16", "int8") if p in kinds]
    if not wanted or not settings.measure:  # a plan in bytes or FLOPs rounds weights alone
        return {}
    static = settings.runtime in EXPORTED and "int8" in wanted  # bytes of one range there, not of one for each token
    key = f"input rounding {','.join(wanted)}{' in one range' if static else ''} by {settings.reduction}"
    if key not in ledger:
        twin = set_evaluating(copied_module(model))
        batches = prepared.sensing_images[:_NOISE_IMAGES].split(_NOISE_IMAGES)
        layers = find_layers(twin, prepared.matched.units, batches[0][:1], prepared.forward)
        ranges = None
        if static:
            ranges = shown_ranges(work, twin, list(layers))
        with work.progress.stage("rounding", len(layers)) as stage:
            found = input_rounding_distortion(
                twin,
                layers,
                batches,
                wanted,
                prepared.forward,
                reference=prepared.reference(batches, twin),
                ranges=ranges,
                done=lambda name: stage.advance(1, name),
            )
        reduce = reduction(settings.reduction)
        ledger.add(key, {n: {p: float(reduce(h[None])[0]) for p, h in row.items()} for n, row in found.items()})
    return ledger.results[key]


def shown_ranges(work: Work, model: nn.Module, layers: Sequence[str]) -> dict[str, InputRange]:
    """The range of each layer's input that a few calibration images show (:func:`fewer.quantize.qdq.input_ranges`)."""
    shown = [part.batch() for part in work.prepared.calibration[:_RANGE_IMAGES].split(work.settings.batch)]
    return input_ranges(model, layers, shown, work.prepared.forward)


def _work_key(
    work: Work, model: nn.Module, alive: Mapping[str, Tensor] | None, options: Mapping[str, Sequence[Option]]
) -> str:
    chosen = {name: getattr(work.settings, name) for name in _SENSED_BY}
    chosen["apart"] = work.prepared.apart
    chosen["results"] = _RESULTS
    chosen["functions"] = [function_fingerprint(one) for one in (work.prepared.forward, work.prepared.distance)]
    offered = {name: [str(option) for option in found] for name, found in options.items()}
    text = json.dumps([chosen, list(work.settings.exclude), offered], sort_keys=True)
    tensors = [v for _, v in sorted((alive or {}).items())]
    return hashlib.sha256(
        (text + work.prepared.calibration.digest() + state_hash(model, *tensors)).encode()
    ).hexdigest()


def _assemble(
    work: Work,
    options: Mapping[str, Sequence[Option]],
    tasks: Sequence[SenseTask],
    results: Mapping[str, Any],
    base: Tensor | None,
    noise: Mapping[str, Mapping[str, float]],
    device: DeviceCosts | None,
) -> CurveSet:
    prepared, settings = work.prepared, work.settings
    reduce = reduction(settings.reduction)
    curves = []
    for unit in prepared.matched.units:
        weight = prepared.layers[unit.name].weight
        parts = [results[str(t)] for t in tasks if t.unit == unit.name]
        distortions = torch.cat([torch.tensor(p["distortions"], dtype=torch.float64) for p in parts], dim=1)
        if base is not None and distortions.shape[1] == len(base) and settings.estimator == "measured":
            distortions = distortions - base  # distortion beyond what earlier rounds have done
        distortion = reduce(distortions).numpy()
        distortion += [noise.get(unit.name, {}).get(runs_as(o.precision), 0.0) for o in options[unit.name]]
        distortion[0] = 0.0
        distortion = _rising(distortion, options[unit.name])
        scores = {k: np.array(v) for k, v in parts[0]["scores"].items()}
        if settings.compensation == "obs":
            scores["unseen"] = unseen(distortion, parts[0]["lost"], parts[0]["silent"], len(prepared.sensing_images))
            distortion = distortion + scores["unseen"]
        costs = option_costs(unit, options[unit.name], weight.element_size())
        between = prepared.couplings.between.get(unit.name, 0.0)
        for metric, times in (("macs", 1.0), ("flops", 2.0)):  # attention shrinks with the heads that proj still reads
            left = [1 - o.sparsity if o.removes == "columns" else 1.0 for o in options[unit.name]]
            costs[metric] = [c + times * between * share for c, share in zip(costs[metric], left, strict=True)]
        if device is not None:
            costs |= device.units[unit.name]  # type: ignore[arg-type]
        curves.append(
            Curve(
                unit,
                tuple(options[unit.name]),
                {m: np.array(c) for m, c in costs.items()},
                distortion,
                scores,
            )
        )
    meta = {
        "model": prepared.loaded.name,
        "settings": settings.model_dump(mode="json"),
        "state": state_hash(prepared.model),
        "images": prepared.inputs.source,
        "reorderings": [one.to_dict() for one in prepared.reorderings],
    }
    coupled = tuple(link.units for link in prepared.couplings.links)
    inside = sum(prepared.couplings.between.values())
    fixed = {
        **prepared.fixed,
        "macs": max(0.0, prepared.fixed["macs"] - inside),
        "flops": max(0.0, prepared.fixed["flops"] - 2 * inside),
    }
    if device is None:
        return CurveSet(tuple(curves), fixed, meta, coupled)
    fixed |= device.fixed
    return CurveSet(tuple(curves), fixed, {**meta, "device": device.facts}, coupled, came=device.came)


def unseen(distortion: np.ndarray, lost: Sequence[float], silent: Sequence[float], images: int) -> np.ndarray:
    """What to add to the distortion of each option of a unit for inputs that none of the sensing images has shown.

    A channel that is silent on a few images looks free to cut. What has not happened on n images may still happen on
    up to three in n others (the rule of three: the 95 % bound); then the weights that went count like any others, and
    the distortion is that of losing their share of the layer. The share is that of the squared weight with silent
    inputs or outputs: what the others lose, the images have shown. The distortion of losing everything is taken from
    the end of the curve, at most 1, which is an output that says nothing.

    Parameters
    ----------
    distortion
        Sensed distortion of each option.
    lost
        Share of the squared weight that each option removes.
    silent
        The part of it with silent inputs or outputs; see :func:`~fewer.engine.sense_task.silence`.
    images
        That distortion was measured on.

    Examples
    --------
    >>> unseen(np.array([0.0, 1e-12, 0.5]), [0.0, 0.1, 0.8], [0.0, 0.1, 0.2], 16)
    array([0.        , 0.01171875, 0.0234375 ])
    """
    if not images:
        return np.zeros_like(distortion)
    worst = int(np.argmax(lost))
    whole = min(1.0, float(distortion[worst]) / lost[worst]) if lost[worst] > 0 else 0.0
    return 3.0 * np.asarray(silent) * whole / images


def _rising(distortion: np.ndarray, options: Sequence[Option]) -> np.ndarray:
    """Distortions that never fall along the nested masks of one pattern and precision: what falls is noise of the
    estimate.

    Examples
    --------
    >>> _rising(np.array([0, 0.2, 0.1]), [Option(), Option("unstructured", 0.1), Option("unstructured", 0.2)])
    array([0. , 0.2, 0.2])
    """
    distortion = np.maximum(distortion, 0.0)
    for kind in {(o.family, o.precision) for o in options}:
        at = [i for i, o in enumerate(options) if (o.family, o.precision) == kind]
        dense = [i for i, o in enumerate(options) if o.is_dense and o.precision == kind[1] and i not in at]
        distortion[at] = np.maximum.accumulate(distortion[dense + at])[len(dense) :]
    return distortion
