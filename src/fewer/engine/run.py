"""One run of compression from prepared model to saved folder, and the object that holds its result."""

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
from fewer.core.plan import Plan
from fewer.core.progress import Progress, timed
from fewer.core.run import RunFolder
from fewer.data.samples import Samples
from fewer.distortion.distance import Distance, MakeDistance
from fewer.engine.apply import apply_options
from fewer.engine.assembly import Assembly
from fewer.engine.contest import Made, decide, final, way_of
from fewer.engine.deploy import deploy, measured_here, plan_within
from fewer.engine.evidence import Evidence
from fewer.engine.plan import choose
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.quality import QualityLike, quality_of
from fewer.engine.report import gather, search_facts
from fewer.engine.runtimes import settle_runtime
from fewer.engine.save import save_model, save_runtime_files
from fewer.engine.sense import Sensed, resolved, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.shrink import Shrunk, shrink
from fewer.engine.tokens import choose_tokens, mergeable
from fewer.models.guard import unguard
from fewer.models.running import Forward
from fewer.patterns import to_matrix
from fewer.reports import RunReport, write

__all__ = ["CompressedRun", "config_of", "report_on", "save_run", "search_images"]


@dataclass(eq=False)
class CompressedRun:
    """What :func:`compress` and :func:`apply` return.

    Attributes
    ----------
    model
        The compressed model, in evaluation mode; the original is untouched.
    plan
        One option per unit.
    report
        The evidence; ``report.to_html("report.html")`` writes the page.
    curves
        Cost and harm of every option; any other budget can be planned from them.
    masks
        True where a weight was kept, in the shape of the original weight, by unit name.
    folder
        Where the run was saved, or None.
    fast
        The same model on the kernels that it was planned for, where latency was measured; for inference on this
        machine, in this process. ``fewer.load(folder, accelerated=True)`` gives it again.
    shrunk
        What was removed for real, and the masks of the smaller model.
    """

    model: nn.Module
    plan: Plan
    report: RunReport
    curves: CurveSet
    masks: dict[str, Tensor]
    prepared: Prepared = field(repr=False)
    folder: Path | None = None
    fast: nn.Module | None = field(default=None, repr=False)
    shrunk: Shrunk | None = field(default=None, repr=False)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the run folder: config, curves, plan, model, recipe, report.

        Raises
        ------
        FewerError
            When the folder is in use or cannot be written.
        """
        with RunFolder.create(folder, overwrite=overwrite) as run, run.together():
            save_run(run, self, {})
        self.folder = Path(folder)
        return self.folder


def save_run(run: RunFolder, result: CompressedRun, config: dict[str, Any]) -> None:
    """Write everything of a finished run into a folder that is locked for it."""
    if config:
        run.write_config(config)
    run.write_curves(result.curves)
    run.write_plan(result.plan)
    masks, removals = result.masks, ()
    if result.shrunk is not None:
        masks, removals = result.shrunk.masks, result.shrunk.removals
    saved = save_model(run.path, result.prepared, result.model, result.plan, masks, removals)
    save_runtime_files(run.path, result.fast)
    result.report.model.artefact_bytes = float(saved.size)
    for entry in result.report.verdict.budgets:
        if entry.metric == "size":
            entry.reached = float(saved.size)
    verdict = result.report.verdict
    verdict.met = all(entry.reached <= entry.limit * (1 + 1e-6) for entry in verdict.budgets)
    write(result.report, run.path)


def config_of(
    model: Any, images: Any, budgets: Sequence[Budget], settings: Settings, quality: QualityLike = None
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "model": model if isinstance(model, str) else f"{type(model).__module__}:{type(model).__qualname__}",
        "settings": {k: v for k, v in settings.model_dump(mode="json").items() if v is not None},
    }
    if budgets:
        facts["budget"] = [str(b) for b in budgets]
    if isinstance(images, (str, Path)):
        facts["images"] = str(images)
    elif isinstance(images, (list, tuple)) and images and all(isinstance(i, (str, Path)) for i in images):
        facts["images"] = [str(i) for i in images]
    if isinstance(quality, (str, Path)):
        facts["labelled"] = str(quality)
    return facts


def _compress(
    model: Any,
    images: Any,
    budgets: Sequence[Budget],
    settings: Settings,
    scratch: Path,
    progress: Progress,
    command: str | None,
    forward: Forward | None,
    quality: QualityLike = None,
    distance: MakeDistance | None = None,
) -> CompressedRun:
    timings: dict[str, float] = {}
    with progress.stage("match", None) as stage, timed(timings, "match"):
        prepared = prepare(model, images, settings, forward, distance=distance)
        judge = quality_of(prepared.loaded, quality)
        if settings.tokens:  # told before anything is measured
            mergeable(prepared)
        stage.advance()
    with timed(timings, "runtimes"):
        prepared, settings = settle_runtime(prepared, settings, budgets, progress, scratch / "runtime.json")
    settings = resolved(prepared, settings)
    with timed(timings, "sense"):
        sensed = sense_curves(
            prepared,
            settings,
            ledger_path=scratch / "ledger.jsonl",
            store=scratch,
            progress=progress,
            budgets=() if settings.tokens else budgets,
        )
    if settings.tokens:
        with timed(timings, "tokens"):
            sensed = choose_tokens(prepared, settings, sensed, budgets, progress, scratch)
    assembly = Assembly.of(prepared.model, sensed.curves, scratch, prepared.example, forward)
    with timed(timings, "plan"):
        allocator, rows = decide(prepared, settings, sensed, assembly, budgets, progress)
    made: dict[bytes, Made] = {}
    believed: dict[str, float] = {}
    if rows:
        with timed(timings, "apply"):
            allocator, made = final(prepared, settings, sensed, budgets, rows, progress)
    way = way_of(allocator)
    with timed(timings, "plan"):
        allocation, under, tried = plan_within(
            prepared,
            settings,
            sensed.curves,
            budgets,
            lambda b: choose(sensed.curves, b, way.allocator, power=settings.power),
            progress,
        )
    if settings.schedule == "iterative":
        compressed, masks, allocation = _iterate(prepared, settings, sensed, budgets, scratch, progress, timings)
        search = None
    else:
        with timed(timings, "search"):
            search = None
            if allocator == "dp":
                allocation, search = _search(prepared, settings, sensed, assembly, budgets, allocation, progress)
        ready = made.get(way.key(allocation.choice))
        if ready is not None:
            compressed, masks = ready.model, ready.masks
        else:
            compressed, masks = _apply(
                prepared, way.settings(settings), sensed, allocation, progress, timings, believed
            )
    method = allocator + ("+search" if search is not None and search["kept"] else "")
    if settings.allocator == "auto" and allocator != "dp":
        method = f"auto:{allocator}"
    plan = Plan.from_allocation(sensed.curves, budgets, allocation, method)
    evidence = Evidence(
        prepared, settings, sensed, plan, allocation, compressed, masks, budgets, timings, search, command, judge
    )
    evidence.tried, evidence.under, evidence.contest, evidence.made = tried, under, rows, made
    evidence.believed = believed
    return report_on(evidence, assembly, progress)


def report_on(evidence: Evidence, assembly: Assembly | None, progress: Progress) -> CompressedRun:
    """Time the model where that was planned, measure it on held-out images, and write everything down."""
    e = evidence
    e.shrunk = shrink(
        e.model,
        e.masks,
        e.prepared.couplings,
        e.plan.options(),
        e.prepared.calibration.split(max(1, e.settings.batch))[0],
        e.prepared.forward,
    )
    e.model = e.shrunk.model
    if "latency" in e.plan.cost and measured_here(e.sensed.curves):
        with progress.stage("time", None) as stage, timed(e.timings, "time"):
            predicted, dense = e.plan.cost["latency"], e.plan.dense["latency"]
            e.deployed = deploy(e.prepared, e.settings, e.model, e.shrunk.masks, e.plan.options(), predicted, dense)
            stage.advance()
    report = gather(e, assembly, progress)
    unguard(e.model)
    fast = e.deployed.model if e.deployed is not None else None
    return CompressedRun(e.model, e.plan, report, e.sensed.curves, e.masks, e.prepared, fast=fast, shrunk=e.shrunk)


def _apply(
    prepared: Prepared,
    settings: Settings,
    sensed: Sensed,
    allocation: Allocation,
    progress: Progress,
    timings: dict[str, float],
    believed: dict[str, float],
) -> tuple[nn.Module, dict[str, Tensor]]:
    chosen = sensed.chosen(allocation.choice)
    with timed(timings, "apply"):
        tokens = sensed.curves.meta.get("tokens")
        return apply_options(
            prepared, settings, sensed.options, chosen, tokens=tokens, progress=progress, believed=believed
        )


def _search(
    prepared: Prepared,
    settings: Settings,
    sensed: Sensed,
    assembly: Assembly,
    budgets: Sequence[Budget],
    start: Allocation,
    progress: Progress,
) -> tuple[Allocation, dict[str, Any] | None]:
    if settings.search == 0 or len(sensed.curves) < 2 or not start.choice.any():
        return start, None
    began = perf_counter()
    batches, reference, judged, judge = search_images(prepared, settings)
    with progress.stage("search", settings.search) as stage:
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


def search_images(
    prepared: Prepared, settings: Settings
) -> tuple[Sequence[Samples], Distance, Sequence[Samples], Distance]:
    """Images to search on and others to decide on; the stored weights were fitted to neither."""
    images = prepared.sensing_images
    half = max(1, len(images) // 2)
    search, judge = images[:half].split(settings.batch), images[-half:].split(settings.batch)
    return search, prepared.reference(search), judge, prepared.reference(judge)


def _iterate(
    prepared: Prepared,
    settings: Settings,
    sensed: Sensed,
    budgets: Sequence[Budget],
    scratch: Path,
    progress: Progress,
    timings: dict[str, float],
) -> tuple[nn.Module, dict[str, Tensor], Allocation]:
    """Reach the budget in geometric steps, 1 - (1 - q)^k; masks only grow, curves are sensed anew at every step."""
    curves, model, masks = sensed, None, {}
    choice: np.ndarray | None = None
    allocation = None
    for number in range(1, settings.rounds + 1):
        if number > 1:
            assert model is not None
            alive = {name: to_matrix(mask) for name, mask in masks.items()}
            with timed(timings, "sense"):
                curves = sense_curves(
                    prepared,
                    settings,
                    model=model,
                    alive=alive,
                    ledger_path=scratch / f"ledger-{number}.jsonl",
                    progress=progress,
                )
        steps = [_step_of(b, sensed.curves, number, settings.rounds) for b in budgets]
        allocation = choose(curves.curves, steps, settings.allocator, choice, power=settings.power)
        choice = allocation.choice
        chosen = sensed.chosen(choice)
        with timed(timings, "apply"):
            model, masks = apply_options(
                prepared,
                settings,
                sensed.options,
                chosen,
                model=model,
                alive={name: to_matrix(mask) for name, mask in masks.items()},
                progress=progress,
                title=f"apply {number}/{settings.rounds}",
            )
    assert model is not None and allocation is not None
    return model, masks, allocation


def _step_of(budget: Budget, curves: CurveSet, number: int, rounds: int) -> Budget:
    """Budget of one round: the dense cost times the wanted share to the power of number / rounds."""
    dense, limit = curves.dense(budget.metric), budget.limit(curves)
    if number == rounds or limit >= dense:
        return budget
    return Budget(budget.metric, dense * (limit / dense) ** (number / rounds), False)
