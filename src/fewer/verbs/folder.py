"""Verbs that work on a run folder step by step: sense into it, apply a plan from it, write its report again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.allocate import Allocation
from fewer.core.budget import Budget, parse_budgets
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.core.plan import Plan
from fewer.core.run import RunFolder
from fewer.models.coupling import find_links
from fewer.models.matching import match
from fewer.models.reorder import read_reorderings
from fewer.models.running import Forward
from fewer.patterns import with_columns
from fewer.report import RunReport, write
from fewer.report.page import Page, is_page
from fewer.verbs.applying import apply_options
from fewer.verbs.compress import CompressedRun, config_of, report_on, save_run
from fewer.verbs.curves import Sensed, resolved, sense_curves
from fewer.verbs.evidence import Evidence
from fewer.verbs.labelled import quality_of
from fewer.verbs.prepare import load_untouched, prepare, state_hash
from fewer.verbs.progress import Progress, Silent
from fewer.verbs.settings import Settings
from fewer.verbs.timing import timed


@dataclass(frozen=True, eq=False)
class SensedRun:
    """What :func:`sense` returns.

    Attributes
    ----------
    curves
        Cost and harm of every option of every unit.
    matched
        Rows of the table of units: matched, skipped and why.
    facts
        Passes and seconds spent.
    folder
        Run folder.
    """

    curves: CurveSet
    matched: list[dict[str, str]]
    facts: dict[str, Any]
    folder: Path


def match_table(model: Any, images: Any = None, exclude: Sequence[str] = (), pattern: str = "") -> list[dict[str, str]]:
    """Rows ``layer kind shape positions macs status`` of a model, without any sensing.

    Where the pattern asks for columns, matched rows also have ``channels``: in what groups a layer's input channels
    can be removed and what goes with them, or why they cannot.

    Parameters
    ----------
    model
        Spec or module.
    images
        A tensor whose first row is used as the example; by default one input of the model's own size.
    exclude
        Shell patterns of layers to leave alone.
    pattern
        As in :class:`Settings`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> match_table(nn.Linear(4, 2), torch.zeros(1, 4))[0]["status"]
    'matched'
    """
    import torch

    loaded = load_untouched(model)
    example = images[:1] if isinstance(images, torch.Tensor) else torch.zeros(1, *loaded.input_size)
    matched = match(loaded.model, example, exclude=tuple(exclude))
    rows = matched.table()
    if with_columns(pattern):
        # a constant image would not tell whether two layers see the same thing
        noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example.dtype)
        couplings = find_links(loaded.model, matched.units, noise)
        for row, unit in zip(rows, matched.units, strict=False):  # units come first
            row["channels"] = couplings.told(unit.name)
    return rows


def sense(
    model: Any,
    images: Any = None,
    *,
    out: str | Path,
    settings: Settings | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    forward: Forward | None = None,
) -> SensedRun:
    """Measure the harm of every option of every unit and keep the curves; any budget can then be planned from them.

    Parameters
    ----------
    model, images, settings, overwrite, resume, progress, forward
        As for :func:`fewer.compress`.
    out
        Run folder.

    Raises
    ------
    FewerError
        When the model or images cannot be used, or the folder cannot be written.

    Examples
    --------
    >>> import fewer
    >>> curves = fewer.sense("fewer/mobilenet-v2", "photos/", out="run/").curves  # doctest: +SKIP
    """
    settings, progress = (settings or Settings()).for_metrics(()), progress or Silent()
    with RunFolder.create(out, overwrite=overwrite, resume=resume) as run:
        run.write_config(config_of(model, images, [], settings))
        with progress.stage("match", None) as stage:
            prepared = prepare(model, images, settings, forward)
            settings = resolved(prepared, settings)
            stage.advance()
        scratch = run.path / ".scratch"
        scratch.mkdir(exist_ok=True)
        sensed = sense_curves(prepared, settings, ledger_path=scratch / "ledger.jsonl", progress=progress)
        run.write_curves(sensed.curves)
        run.log("sensed", **sensed.facts)
        return SensedRun(sensed.curves, prepared.matched.table(), sensed.facts, run.path)


def apply(
    run: str | Path,
    plan: Plan | str | Path | None = None,
    *,
    model: Any = None,
    images: Any = None,
    progress: Progress | None = None,
    command: str | None = None,
    forward: Forward | None = None,
) -> CompressedRun:
    """Make the model of a plan, and write it and its report into the run folder.

    Parameters
    ----------
    run
        Run folder with curves.
    plan
        A plan, its file, or None for the folder's ``plan.json``.
    model, images
        By default those that the run's ``config.toml`` names; needed when they were Python objects.
    progress, command, forward
        As for :func:`fewer.compress`.

    Raises
    ------
    FewerError
        When the plan does not fit the curves, or the model is not the one that was sensed.

    Examples
    --------
    >>> import fewer
    >>> fewer.apply("run/", fewer.plan("run/", "weights=40%"))  # doctest: +SKIP
    """
    progress = progress or Silent()
    RunFolder.open(run)
    with RunFolder.create(run, resume=True) as folder:
        curves, config = folder.read_curves(), folder.read_config()
        if plan is None:
            plan = folder.read_plan()
        elif not isinstance(plan, Plan):
            plan = Plan.load(plan)
        choice = plan.choice(curves)
        settings = Settings.of_run(config.get("settings", {}), str(folder.file("config")))
        timings: dict[str, float] = {}
        with progress.stage("match", None) as stage, timed(timings, "match"):
            prepared = prepare(
                model if model is not None else _from_config(config, "model", run),
                images if images is not None else config.get("images"),
                settings,
                forward,
                read_reorderings(curves.meta.get("reorderings", ())),
            )
            stage.advance()
        if state_hash(prepared.model) != curves.meta.get("state"):
            raise FewerError(
                f"the model {prepared.loaded.name} is not the one that {run} was sensed on "
                f"({curves.meta.get('model')}); sense it again with: fewer sense"
            )
        options = {c.unit.name: c.options for c in curves.curves}
        chosen = {c.unit.name: c.options[k] for c, k in zip(curves.curves, choice, strict=True)}
        with timed(timings, "apply"):
            tokens = curves.meta.get("tokens")
            compressed, masks = apply_options(prepared, settings, options, chosen, tokens=tokens, progress=progress)
        budgets: list[Budget] = list(parse_budgets(plan.budgets)) if plan.budgets else []
        sensed = Sensed(curves, options, [], None, {"passes": 0, "seconds": 0.0})
        allocation = Allocation(choice, plan.cost, plan.distortion)
        evidence = Evidence(
            prepared, settings, sensed, plan, allocation, compressed, masks, budgets, timings, None, command,
            quality_of(prepared.loaded, config.get("labelled")),
        )  # fmt: skip
        result = report_on(evidence, None, progress)
        save_run(folder, result, {})
        folder.log("applied", distortion=result.report.verdict.distortion)
        result.folder = folder.path
        return result


def _from_config(config: dict[str, Any], name: str, run: str | Path) -> Any:
    value = config.get(name)
    if not isinstance(value, str) or (":" in value and ".py:" not in value):
        raise FewerError(f"{run} was made from a Python object ({value}); give the model again, as {name}=")
    return value


def rewrite_report(run: str | Path) -> Path:
    """Write ``report.html`` of a run again from its ``report.json``.

    Raises
    ------
    FewerError
        When the folder has no report.

    Examples
    --------
    >>> import fewer
    >>> fewer.rewrite_report("run/")  # doctest: +SKIP
    PosixPath('run/report.html')
    """
    folder = RunFolder.open(run)
    if not folder.has("report_json"):
        raise FewerError(f"{run} has no report yet; make one with: fewer apply {run}")
    text = folder.file("report_json").read_text("utf-8")
    if is_page(text):
        return folder.write_text("report_html", Page.from_json(text).to_html())
    return write(RunReport.from_json(text), folder.path)[0]
