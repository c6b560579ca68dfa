"""Recover: train what a compression left, without labels, until a time is up; masks and precisions stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor, nn
from typing_extensions import Unpack

from fewer.core.display import Fact, Shown
from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.core.options import split_options
from fewer.core.plan import Plan
from fewer.core.progress import Progress, Stage, usual_progress
from fewer.core.reading import read_bytes
from fewer.core.run import RunFolder
from fewer.distillation.blocks import find_blocks
from fewer.distillation.recover import RecoverySettings, TeacherStudent, has_fast_bf16, train_student
from fewer.engine.choices import RecoverOptions
from fewer.engine.judge import Judge, judge_of
from fewer.engine.quality import QualityLike
from fewer.engine.refit import affordable_views, can_refit, refit, room_for_views
from fewer.engine.reopen import Measured, OpenRun, check_finished, open_run
from fewer.models.artefact import save_artefact, state_hash
from fewer.models.choices import choose_freely
from fewer.models.recipe import Recipe, precisions_of
from fewer.models.running import Forward
from fewer.models.trust import Trust, trusting
from fewer.quantize.activations import rounding_inputs_of
from fewer.reports import RunReport, write
from fewer.reports.compression.data import Recovery
from fewer.training.callbacks import Callback, history_file, looking_on
from fewer.training.checkpoint import work_key
from fewer.training.constrained import Held
from fewer.training.history import Fit

__all__ = ["CHECKPOINT", "RecoveredRun", "recover"]

CHECKPOINT = "recover.safetensors"
"""In the scratch folder of a run while it is being recovered."""

_COPIED = ("config", "curves", "plan")
_FIT_SHARE = 0.5  # of the time that is left, for the least squares
_FIT_VIEWS = 2  # times the calibration images, where steps and not a time are given
_SPARE = 1.15  # on the time that judging and saving take, as measured at the beginning
_SAVING = 2.0  # seconds that are left for writing the files


@dataclass(frozen=True)
class _Asked:
    """What a recovery is told beside its settings; :func:`recover` explains each part."""

    steps: int | None = None
    views: int | None = None
    seed: int | None = None
    device: str | None = None
    overwrite: bool = False
    resume: bool = False
    progress: Progress | None = None
    command: str | None = None
    forward: Forward | None = None
    quality: QualityLike = None
    trust: Trust = False
    callbacks: Sequence[Callback] = ()


ASKED = tuple(field.name for field in fields(_Asked))
CHOICES = tuple(field.name for field in fields(RecoverySettings) if field.name not in ("seconds", "steps"))
"""Names that :func:`recover` takes beside those of its signature."""


@dataclass(eq=False, repr=False)
class RecoveredRun(Shown):
    """What :func:`recover` returns.

    Attributes
    ----------
    model
        The recovered model in evaluation mode, as it is saved.
    plan
        That of the run; training changes nothing of it.
    report
        The run's evidence, with what was won.
    masks
        True where a weight is kept, by unit name.
    folder
        Where everything was written.
    """

    model: nn.Module
    plan: Plan
    report: RunReport
    masks: dict[str, Tensor]
    folder: Path

    def shown(self) -> tuple[str, list[Fact]]:
        """What the report says and where the run is."""
        _, facts = self.report.shown()
        return f"Recovered {self.report.model.name}", [*facts, ("saved", str(self.folder))]


def recover(
    run: str | Path,
    time: str | float | None = "10min",
    *,
    out: str | Path | None = None,
    images: Any = None,
    model: Any = None,
    settings: Mapping[str, Any] | None = None,
    **options: Unpack[RecoverOptions],
) -> RecoveredRun:
    """Win back quality that a compression lost, by training on unlabelled images for a given time.

    Least squares first fits every layer again, on many more views of the images than the compression had time for.
    Then every block of the compressed model learns to answer as its dense twin does, and last the whole model.
    Weights that were cut stay zero, and weights and activations of a low precision are rounded while they learn, so
    that what is saved is what was trained. Of all states on the way, the one that is best on images set apart from
    the training counts: held-out files that the run did not use choose it, or, where there are too few of these, half
    of those that it used, and the others say what was won.

    Parameters
    ----------
    run
        Run folder of :func:`fewer.compress` or :func:`fewer.apply`.
    time
        ``"90s"``, ``"10min"``, ``"1.5h"`` or seconds, on the clock, judging and saving included.
    out
        Write a new run folder and leave this one as it is.
    images, model
        By default those that the run's ``config.toml`` names; needed when they were Python objects.
    settings
        Other values of :class:`fewer.distillation.recover.RecoverySettings`, such as ``{"learning_rate": 2e-3}``.
    **options
        The same by name, such as ``learning_rate=2e-3`` or ``batch=8``. And how the work is done:

        ``steps``: train for so many steps instead of a time; the only way to get the same weights twice. ``views``:
        images that the least squares learn from; 0 leaves them out, and by default they are as many as fit into half
        of the time and into memory, with ``steps`` twice the calibration images of the run. ``seed`` of the views
        that are drawn, and ``device`` (``cpu``, ``cuda:0`` or any other of torch): by default those of the run.

        ``overwrite``: replace the run at ``out``, and start an interrupted recovery anew. ``resume``: go on with it.
        ``progress``, ``command``, ``forward`` and ``quality`` are as for :func:`fewer.compress`, ``trust`` as for
        :func:`fewer.load`, ``callbacks`` as for :func:`fewer.train`.

    Returns
    -------
    RecoveredRun

    Raises
    ------
    FewerError
        When the folder is no finished run, images or model are missing or not those of the run, there are too few
        images, or the time is too short.

    Examples
    --------
    >>> import fewer
    >>> fewer.recover("run/", "10min").report.recovery.after  # doctest: +SKIP
    0.21
    """
    from fewer.core.duration import parse_duration

    began = perf_counter()
    own, named = split_options("recover", {**(settings or {}), **options}, ASKED, CHOICES)
    ask = _Asked(**own)
    if ask.views is not None and ask.views < 0:
        raise FewerError(f"the number of views must be 0 or more; got {ask.views}")
    seconds = None if ask.steps is not None or time is None else parse_duration(time)
    wanted = RecoverySettings(seconds=seconds, steps=ask.steps, **{"bf16": has_fast_bf16(), **named})
    progress = ask.progress or usual_progress()
    source = RunFolder.open(run)
    check_finished(source)
    elsewhere = out is not None and real_path(out) != real_path(source.path)
    with ExitStack() as stack:
        with progress.stage("match", None) as stage:
            with trusting(ask.trust):
                work = open_run(source, model, images, ask.forward, ask.quality, ask.seed, ask.device)
            stage.advance()
        how = {"overwrite": ask.overwrite, "resume": ask.resume}
        folder = stack.enter_context(RunFolder.create(out, **how) if out and elsewhere else RunFolder.edit(run))
        if ask.resume and not elsewhere and _is_done(folder, work.recipe):
            folder.clear_scratch()
            return _recovered(folder, work, RunReport.from_json(folder.read_text("report_json")))
        checkpoint = _scratch(folder, ask.overwrite, ask.resume, elsewhere)
        start = work.recipe.weights_sha256
        folder.log("recovering", command=ask.command or "", budget_seconds=seconds, steps=ask.steps, start=start)
        with progress.stage("judge", None) as stage:
            work.judge = judge_of(work.prepared, work.settings, work.prepared.heldout)
            judging = perf_counter()
            before = work.measure()
            reserve = _SPARE * (perf_counter() - judging) + _SAVING
            stage.advance()
        with looking_on(ask.callbacks):
            fit = _learn(work, wanted, ask.views, began, reserve, checkpoint, progress)
        after = work.measure() if fit.improved else before
        with progress.stage("save", None) as stage:
            report = _report(work, fit, before, after, perf_counter() - began, ask.command)
            _save(folder, work, report, fit, source if elsewhere else None)
            stage.advance()
        folder.log("recovered", before=report_error(report, "before"), after=report_error(report, "after"))
        folder.clear_scratch()
        return _recovered(folder, work, report)


def _recovered(folder: RunFolder, work: OpenRun, report: RunReport) -> RecoveredRun:
    return RecoveredRun(choose_freely(work.student), work.plan, report, work.masks, folder.home)


def report_error(report: RunReport, which: str) -> float | None:
    """The held-out error before or after the recovery."""
    return getattr(report.recovery, which) if report.recovery is not None else None


def _is_done(folder: RunFolder, recipe: Recipe) -> bool:
    """Whether the recovery that began last has put its model into the run, and was killed while it tidied up."""
    begun = [entry for entry in folder.read_log() if entry["event"] == "recovering"]
    start = begun[-1].get("start") if begun else None
    return start is not None and start != recipe.weights_sha256 and "recovery" in recipe.meta


def _scratch(folder: RunFolder, overwrite: bool, resume: bool, elsewhere: bool) -> Path:
    """The place of the checkpoint; one that is there is gone on with, or told about."""
    checkpoint = folder.scratch() / CHECKPOINT
    if checkpoint.exists() and not resume:
        if not overwrite:
            raise FewerError(
                f"{folder.path} holds an interrupted recovery; give --resume to go on with it, or --overwrite to start "
                "it anew"
            )
        checkpoint.unlink()
    return checkpoint


def _learn(
    work: OpenRun,
    wanted: RecoverySettings,
    views: int | None,
    began: float,
    reserve: float,
    checkpoint: Path,
    progress: Progress,
) -> Fit:
    """Fit, then teach the student for what is left of the time."""
    prepared = work.prepared
    used = perf_counter() - began
    settings = wanted
    if wanted.seconds is not None:
        left = wanted.seconds - used - reserve
        if left < 0.25 * wanted.seconds:
            raise FewerError(
                f"loading and judging this model takes about {used + reserve:.0f} s, which leaves too little of "
                f"{wanted.seconds:g} s for training; give at least --time {max(10, round(4 * (used + reserve)))}s"
            )
        settings = RecoverySettings(**{**vars(wanted), "seconds": left})
    choosing = judge_of(prepared, work.settings, work.views.choosing)
    activations = _rounded_activations(work)
    fit = Fit(better="lower")
    if not checkpoint.exists() and can_refit(prepared, work.student, work.recipe, work.settings):
        _refit(work, settings, views, choosing, activations, fit, progress)
    return _train(work, settings, wanted, choosing, activations, fit, checkpoint, progress)


def _refit(
    work: OpenRun,
    settings: RecoverySettings,
    views: int | None,
    choosing: Judge,
    activations: Mapping[str, list[nn.Module]],
    fit: Fit,
    progress: Progress,
) -> None:
    """Least squares on many views, if there is time for enough of them; kept if it is better."""
    began = perf_counter()

    def error() -> float:
        with rounding_inputs_of(activations):
            return choosing.judge(work.student).distortion

    fit.note(work.student, error())
    if views is None and settings.seconds is None:
        views = min(_FIT_VIEWS * len(work.prepared.calibration), room_for_views(work.prepared))
    elif views is None and settings.seconds is not None:
        per_image = (perf_counter() - began) / max(1, len(work.views.choosing))
        views = affordable_views(work.prepared, _FIT_SHARE * settings.seconds, per_image)
    fit.seconds = perf_counter() - began
    if not views:
        return
    with progress.stage("fit", len(work.recipe.units)) as stage:
        refit(
            work.prepared,
            work.settings,
            work.student,
            work.masks,
            {unit.name: unit.precision for unit in work.recipe.units},
            work.views.draw(0, views),
            lambda name: stage.advance(1, name),
        )
    fit.seconds = perf_counter() - began
    if fit.note(work.student, error()):
        fit.facts["fitted"] = views
    else:
        fit.load_best(work.student)


def _train(
    work: OpenRun,
    settings: RecoverySettings,
    wanted: RecoverySettings,
    choosing: Judge,
    activations: Mapping[str, list[nn.Module]],
    fit: Fit,
    checkpoint: Path,
    progress: Progress,
) -> Fit:
    """Teach the student for what is left of the time."""
    prepared, recipe = work.prepared, work.recipe
    names = [unit.name for unit in recipe.units]
    blocks = find_blocks(prepared.model, names, prepared.example, prepared.forward)
    models = TeacherStudent(
        prepared.model,
        work.student,
        {
            u.name: Held(None if bool(work.masks[u.name].all()) else work.masks[u.name], u.precision)
            for u in recipe.units
        },
        blocks,
        choosing.training_error,
        activations,
        [skip.name for skip in prepared.matched.skipped if skip.reason == "excluded by the user"],
        prepared.forward,
    )
    total = float(settings.steps) if settings.steps is not None else settings.seconds
    with progress.stage("recover", total) as stage:
        return train_student(
            models,
            settings,
            lambda step: work.views.step(step, settings.batch),
            lambda student: choosing.judge(student).distortion,
            start=fit,
            checkpoint=checkpoint,
            key=_key(work, wanted),
            callbacks=[_Show(stage, settings)],
        )


class _Show(Callback):
    """Shows steps or seconds, and the best error so far."""

    def __init__(self, stage: Stage, settings: RecoverySettings) -> None:
        self.stage, self.seconds, self.shown = stage, settings.seconds, 0.0

    def after_step(self, fit: Fit) -> None:
        now = float(fit.step) if self.seconds is None else min(fit.seconds, self.seconds)
        note = f"error {fit.history[0]['score']:.3g} to {fit.best_score:.3g}" if fit.history else ""
        self.stage.advance(max(0.0, now - self.shown), note)
        self.shown = max(self.shown, now)

    def validated(self, fit: Fit) -> None:
        self.after_step(fit)


def _rounded_activations(work: OpenRun) -> dict[str, list[nn.Module]]:
    """Layers whose kernels round what they are given; in a plan that prices no arithmetic weights alone are rounded."""
    if not work.settings.measure:
        return {}
    found: dict[str, list[nn.Module]] = {}
    for name, precision in precisions_of(work.recipe).items():
        if precision != "fp32":
            found.setdefault(precision, []).append(work.student.get_submodule(name))
    return found


def _key(work: OpenRun, settings: RecoverySettings) -> str:
    """Everything that decides the training, but for the time: more of it may be given when it goes on."""
    facts = {name: value for name, value in vars(settings).items() if name not in ("seconds", "steps")}
    facts |= {"steps": settings.steps, "weights": work.recipe.weights_sha256, "images": work.views.names}
    facts |= {"seed": work.views.training.seed, "state": state_hash(work.prepared.model)}
    return work_key(facts)


def _report(
    work: OpenRun,
    fit: Fit,
    before: Measured,
    after: Measured,
    seconds: float,
    command: str | None,
) -> RunReport:
    """The run's report with its new quality; what other methods reached stays as it was."""
    report = work.report.model_copy(update={"runtimes": None}, deep=True)  # that was the model before
    was, now, whole = before.clean, after.clean, after.whole
    # recovered before, and judged by the same images: the start of the first time is what counts
    first = report.recovery if report.recovery and report.recovery.source == work.views.source else None
    report.worst = RunReport.from_dict({**report.model_dump(), "worst": after.worst}).worst
    report.recovery = Recovery(
        before=was.distortion if first is None else first.before,
        after=now.distortion,
        quality_name=now.name,
        quality_before=was.value if first is None else first.quality_before,
        quality_after=now.value,
        seconds=seconds + (first.seconds if first is not None else 0.0),
        steps=fit.step,
        best_step=fit.best_step,
        refitted=int(fit.facts.get("fitted", 0)),
        images=len(work.views),
        choosing=len(work.views.choosing),
        source=work.views.source,
        points=[[seconds, entry["score"]] for seconds, entry in zip(fit.times, fit.history, strict=True)],
        command=command or "",
    )
    verdict = report.verdict
    verdict.distortion = whole.distortion
    for place, row in enumerate(verdict.quality):
        if place == 0 and not row.labelled:  # the likeness, whatever an earlier version called it
            row.name, row.value = whole.name, whole.value
        else:
            row.value = after.labelled.get(row.name, row.value)
    ours = {"name": "recovered", "label": "fewer, recovered by training", "ours": True, "distortion": whole.distortion}
    ours |= {
        "quality": {whole.name: whole.value, **after.labelled},
        "seconds": report.recovery.seconds,
        "compensated": True,
    }
    ours |= {"note": "the only one that was trained"}
    rows = [row for row in report.baselines if row.name != "recovered"]
    report.baselines = [type(rows[0])(**ours), *rows] if rows else []
    report.timings = {**report.timings, "recover": report.recovery.seconds}
    report.limits = [
        *(line for line in report.limits if not line.startswith(_LIMIT)),
        f"{_LIMIT} and masks and precisions are as before; the other methods were not trained. {_chosen_by(work)}",
    ]
    return report


def _chosen_by(work: OpenRun) -> str:
    if bool(work.views.judges.all()):
        return "Held-out files that nothing else was told for chose the best state."
    return (
        "Half of the held-out files chose the best state, so what was won is told for the other half; all other "
        "numbers are of both."
    )


_LIMIT = "Recovery trains on unlabelled images of the same source,"


def _save(folder: RunFolder, work: OpenRun, report: RunReport, fit: Fit, source: RunFolder | None) -> None:
    """Write all that belongs together, with files of the ``source`` where the folder is another one."""
    with folder.together():
        if source is not None:
            for name in _COPIED:
                folder.write_bytes(name, read_bytes(source.file(name), 2**30))
        _write(folder, work, report, fit)


def _write(folder: RunFolder, work: OpenRun, report: RunReport, fit: Fit) -> None:
    """Write model and recipe where there is something new, then the report."""
    recipe = work.recipe
    assert report.recovery is not None
    units = [
        {
            "name": unit.name,
            "pattern": unit.pattern,
            "sparsity": unit.sparsity,
            "precision": unit.precision,
            "mask": None if unit.pattern == "dense" else work.masks[unit.name],
        }
        for unit in recipe.units
    ]
    meta = {**recipe.meta, "recovery": {"steps": fit.step, "best_step": fit.best_step}}
    saved = save_artefact(
        folder.path,
        work.student,
        units,
        recipe.source,
        meta,
        preprocess=work.prepared.loaded.preprocess,
        provenance=recipe.provenance,
        aside=recipe.aside,
    )
    fit.history.save(folder.path / history_file("recover"))
    report.model.artefact_bytes = float(saved.size)
    for entry in report.verdict.budgets:
        if entry.metric == "size":
            entry.reached = float(saved.size)
    report.verdict.met = all(entry.met for entry in report.verdict.budgets)
    write(report, folder.path)
