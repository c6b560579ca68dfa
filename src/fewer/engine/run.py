"""One run of compression from prepared model to saved folder, and the object that holds its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.display import Fact, Shown
from fewer.core.memory import keep_freed_memory
from fewer.core.plan import Plan
from fewer.core.progress import Progress, timed
from fewer.core.run import RunFolder
from fewer.distortion.distance import MakeDistance
from fewer.engine.approximate import approximate_model, has_sites, sites_of
from fewer.engine.as_used import input_rounding
from fewer.engine.assembly import Assembly
from fewer.engine.cut import Cut, Planned, make_cut, make_plan
from fewer.engine.deploy import deploy, foretold, measured_here
from fewer.engine.evidence import Evidence
from fewer.engine.functions import joined, plan_functions
from fewer.engine.neighbours import settle_neighbours
from fewer.engine.pixels import choose_less, least_share, offers_pixels
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.quality import QualityLike, quality_of
from fewer.engine.report import gather
from fewer.engine.runtimes import settle_runtime
from fewer.engine.save import save_model, save_runtime_files
from fewer.engine.sense import Sensed, resolved, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.shrink import Shrunk, shrink
from fewer.engine.tokens import choose_tokens, mergeable
from fewer.engine.work import Work
from fewer.models.choices import choose_freely
from fewer.models.functional import leave_linear_layers
from fewer.models.guard import unguard
from fewer.models.remembered import remembering
from fewer.models.running import Forward
from fewer.models.strangers import refuse_unsaved
from fewer.reports import RunReport, write
from fewer.tasks import Quality

__all__ = ["CompressedRun", "Request", "report_on", "run_compression", "save_run"]


@dataclass(eq=False, repr=False)
class CompressedRun(Shown):
    """What :func:`compress` and :func:`apply` return.

    Attributes
    ----------
    model
        The compressed model, in evaluation mode; the original is untouched.
    plan
        One option per unit.
    report
        The evidence; :meth:`save` writes its page, and :func:`fewer.reports.render` gives it as text.
    curves
        Cost and distortion of every option; any other budget can be planned from them.
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

    def shown(self) -> tuple[str, list[Fact]]:
        """What the report says, what the run holds and where it is."""
        title, facts = self.report.shown()
        where = str(self.folder) if self.folder else 'nowhere yet; run.save("folder") writes it'
        holds = "model, plan, report, curves, masks" + (", fast (on its kernels)" if self.fast is not None else "")
        return title.replace("Report of", "Compressed"), [*facts, ("holds", holds), ("saved", where)]

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


@dataclass(frozen=True, eq=False)
class Request:
    """What :func:`fewer.compress` is asked for; its documentation explains each part."""

    model: Any
    images: Any
    budgets: Sequence[Budget]
    settings: Settings
    forward: Forward | None = None
    quality: QualityLike = None
    distance: MakeDistance | None = None
    command: str | None = None
    kept: bool = False  # in a run folder, and not only in memory

    def config(self) -> dict[str, Any]:
        """What ``config.toml`` of a run folder holds, for those who work on it later."""
        model, images = self.model, self.images
        facts: dict[str, Any] = {
            "model": model if isinstance(model, str) else f"{type(model).__module__}:{type(model).__qualname__}",
            "settings": {k: v for k, v in self.settings.model_dump(mode="json").items() if v is not None},
        }
        if self.budgets:
            facts["budget"] = [str(b) for b in self.budgets]
        if isinstance(images, (str, Path)):
            facts["images"] = str(images)
        elif isinstance(images, (list, tuple)) and images and all(isinstance(i, (str, Path)) for i in images):
            facts["images"] = [str(i) for i in images]
        if isinstance(self.quality, (str, Path)):
            facts["labelled"] = str(self.quality)
        return facts


@keep_freed_memory()
@remembering()
def run_compression(request: Request, scratch: Path, progress: Progress) -> CompressedRun:
    """Match, sense, plan, apply and report.

    Parameters
    ----------
    request
        What is wanted.
    scratch
        Folder for what is sensed and made on the way; an interrupted run finds it there again.
    progress
        Is told about the stages.
    """
    timings: dict[str, float] = {}
    budgets = request.budgets
    work, quality = _open(request, scratch, progress, timings)
    sensed = _sense(work, budgets, scratch, timings)
    with timed(timings, "plan"):
        settled = settle_neighbours(work, sensed, budgets)
    sensed = settled.sensed
    assembly = Assembly.of(
        work.prepared.model, sensed.curves, scratch, work.prepared.example, request.forward, input_rounding(work)
    )
    planned = make_plan(work, settled, assembly, budgets, timings)
    cut = make_cut(work, sensed, assembly, planned, budgets, scratch, timings)
    evidence = Evidence(
        prepared=work.prepared,
        settings=work.settings,
        sensed=sensed,
        plan=Plan.from_allocation(sensed.curves, budgets, cut.allocation, _method(work.settings, planned, cut)),
        allocation=cut.allocation,
        model=cut.model,
        masks=cut.masks,
        budgets=budgets,
        timings=timings,
        command=request.command,
        quality=quality,
        search=cut.search,
        tried=planned.tried,
        under=planned.under,
        contest=planned.rows,
        made=planned.made,
        believed=cut.believed,
    )
    return report_on(evidence, assembly, progress)


def _open(
    request: Request, scratch: Path, progress: Progress, timings: dict[str, float]
) -> tuple[Work, Quality | None]:
    """The model with its inputs, for the runtime that it is to be used in, and who judges it."""
    settings = request.settings
    with progress.stage("match", None) as stage, timed(timings, "match"):
        prepared = prepare(request.model, request.images, settings, request.forward, distance=request.distance)
        if request.kept:
            refuse_unsaved(prepared.model)
        quality = quality_of(prepared.loaded, request.quality)
        if settings.tokens:  # told before anything is measured
            mergeable(prepared)
        offered = offers_pixels(prepared, settings, request.budgets)
        settings = settings.model_copy(update={"pixels": "on" if offered else "off"})
        if settings.approximate == "auto":
            settings = settings.model_copy(update={"approximate": "best" if has_sites(prepared) else None})
        elif settings.approximate is not None:
            sites_of(prepared)
        stage.advance()
    with timed(timings, "runtimes"):
        work = settle_runtime(Work(prepared, settings, progress), request.budgets, scratch / "runtime.json")
    return work.under(resolved(work.prepared, work.settings)), quality


def _sense(work: Work, budgets: Sequence[Budget], scratch: Path, timings: dict[str, float]) -> Sensed:
    """The curves, with merged tokens, fewer pixels or frames and integer functions where these are asked for."""
    tokens, pixels, functions = work.settings.tokens, work.settings.pixels == "on", joined(work.settings, budgets)
    with timed(timings, "sense"):
        early, share = () if tokens or functions else budgets, least_share(work.prepared) if pixels else 1.0
        sensed = sense_curves(work, ledger_path=scratch / "ledger.jsonl", store=scratch, budgets=early, share=share)
    if tokens:
        with timed(timings, "tokens"):
            sensed = choose_tokens(work, sensed, budgets, scratch)
    if pixels:
        with timed(timings, "pixels"):
            sensed = choose_less(work, sensed, budgets, scratch)
    if functions:
        with timed(timings, "integers"):
            sensed = plan_functions(work, sensed, budgets)
    return sensed


def _method(settings: Settings, planned: Planned, cut: Cut) -> str:
    """What the report calls the way that the plan was made in."""
    if settings.allocator == "auto" and planned.allocator != "dp":
        return f"auto:{planned.allocator}"
    return planned.allocator + ("+search" if cut.search is not None and cut.search["kept"] else "")


def report_on(evidence: Evidence, assembly: Assembly | None, progress: Progress) -> CompressedRun:
    """Time the model where that was planned, measure it on held-out images, and write everything down."""
    e = evidence
    example = e.prepared.calibration.split(max(1, e.settings.batch))[0]
    shrunk = shrink(e.model, e.masks, e.prepared.couplings, e.plan.options(), example, e.prepared.forward)
    e = replace(e, shrunk=shrunk, model=shrunk.model)
    if "latency" in e.plan.cost and measured_here(e.sensed.curves):
        with progress.stage("time", None) as stage, timed(e.timings, "time"):
            predicted, dense = foretold(e.tried, e.plan.cost["latency"]), e.plan.dense["latency"]
            work = Work(e.prepared, e.settings, progress)
            e = replace(e, deployed=deploy(work, e.model, shrunk.masks, e.plan.options(), predicted, dense))
            stage.advance()
    if e.settings.approximate is not None:
        with timed(e.timings, "integers"):
            planned = e.sensed.curves.meta.get("functions")
            made = approximate_model(Work(e.prepared, e.settings, progress), e.model, planned)
            e = replace(e, approximated=made, model=made.model)
    report = gather(e, assembly, progress)
    leave_linear_layers(choose_freely(unguard(e.model)))
    fast = choose_freely(e.deployed.model) if e.deployed is not None else None
    return CompressedRun(e.model, e.plan, report, e.sensed.curves, e.masks, e.prepared, fast=fast, shrunk=shrunk)
