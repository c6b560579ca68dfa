"""What several verbs do alike: run the main job, show a dry run, tell where things are."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.cli.flags import Shared
from fewer.cli.progress import terminal_progress
from fewer.cli.show import as_json, match_rows, say, shorten

if TYPE_CHECKING:
    from fewer.core.plan import Plan
    from fewer.core.progress import Progress
    from fewer.engine.run import CompressedRun
    from fewer.engine.settings import Settings
    from fewer.reports import RunReport
    from fewer.verbs.recover import RecoveredRun

    More = Callable[[], dict[str, Any]]

__all__ = ["command_line", "dry_run", "remember_command", "run_compress", "show_finished", "show_run"]

NOT_MET = 3
"""Exit code when the finished model is over its budget, for scripts that would go on with it."""

_WORDS: list[str] = []


def remember_command(words: list[str]) -> None:
    """Note the command line, for the report's "how to reproduce"."""
    _WORDS[:] = words


def command_line() -> str:
    """The command as a person would type it again."""
    return shlex.join(["fewer", *(word for word in _WORDS if word not in ("--resume", "--overwrite", "--debug"))])


def run_compress(
    model: str,
    images: Any,
    budget: Any,
    settings: Settings,
    shared: Shared,
    out: str,
    labelled: str | None = None,
    recover: str | None = None,
    progress: Progress | None = None,
    more: More | None = None,
) -> int:
    """Run the main job with everything decided, and show its verdict.

    ``progress`` is the usual one by default; ``more`` is as for :func:`show_run`.
    """
    import fewer
    from fewer.core.budget import model_budgets

    budgets = model_budgets(budget)  # a bad budget is told before a model is loaded
    if shared.dry_run:
        lines = [f"budget {budget}" for budget in budgets] + ([f"recover for {recover}"] if recover else [])
        return dry_run(model, images, settings, shared, lines, out)
    if recover is not None and shared.resume and _is_compressed(out):
        return _recover(recover, shared, out)
    run = fewer.compress(
        model,
        images,
        budgets,
        out=out,
        settings=settings,
        overwrite=shared.overwrite,
        resume=shared.resume,
        progress=progress or terminal_progress(),
        command=command_line(),
        quality=labelled,
    )
    return show_run(run, shared, out, more) if recover is None else _recover(recover, shared, out)


def _is_compressed(out: str) -> bool:
    """Whether the compression of an interrupted command was over, so that only its recovery is left."""
    from fewer.core.run import RunFolder

    if not Path(out).is_dir():
        return False
    events = [line["event"] for line in RunFolder.open(out).read_log()]
    last = next((event for event in reversed(events) if event in ("started", "finished", "recovered")), "")
    return last == "finished"


def _recover(time: str, shared: Shared, out: str) -> int:
    import fewer

    resume = shared.resume and not shared.overwrite
    done = fewer.recover(
        out, time, resume=resume, overwrite=not resume, progress=terminal_progress(), command=command_line()
    )
    return show_run(done, shared, out)


def show_finished(shared: Shared, out: str, more: More | None = None) -> int:
    """Show the verdict of a run that was finished before."""
    from fewer.core.run import RunFolder
    from fewer.reports import RunReport

    run = RunFolder.open(out)
    return _show(RunReport.from_json(run.read_text("report_json")), run.read_plan(), shared, out, more)


def show_run(run: CompressedRun | RecoveredRun, shared: Shared, out: str, more: More | None = None) -> int:
    """Show a finished run: the verdict box, or all of it as JSON.

    ``more`` makes what the JSON holds beside it, once the run is there.
    """
    return _show(run.report, run.plan, shared, out, more)


def _show(report: RunReport, plan: Plan, shared: Shared, out: str, more: More | None) -> int:
    from fewer.cli.show import verdict_box

    page = str(Path(out) / "report.html")
    if shared.json:
        facts = {"folder": out, "page": page, "plan": plan.model_dump(), "report": report.model_dump()}
        as_json(facts | (more() if more is not None else {}))
    else:
        say(verdict_box(report, out, page))
    return 0 if report.verdict.met else NOT_MET


def _images_line(where: str, files: int, data_free: str | None) -> str:
    if data_free is not None:
        return f"images made up ({data_free})"
    return f"images {shorten(where, 60)}" + (f" ({files} files)" if files else "")


def dry_run(model: str, images: Any, settings: Settings, shared: Shared, lines: list[str], out: str | None) -> int:
    """Show which layers would be cut and what would be done, and do nothing."""
    import fewer
    from fewer.data.images import list_images
    from fewer.engine.samples import sensing_share

    rows = fewer.match_table(model, exclude=settings.exclude, pattern=settings.pattern)
    if isinstance(images, str) and (Path(model) / "recipe.json").is_file():
        files = []  # the model's own task reads them
    else:
        files = list_images(images) if isinstance(images, str) else list(images or ())
    changed = {k: v for k, v in settings.model_dump().items() if v != type(settings).model_fields[k].default}
    if shared.json:
        would = {"settings": settings.model_dump(), "would": lines, "images": [str(path) for path in files]}
        as_json({"dry_run": True, "model": model, "layers": rows, "out": out, **would})
        return 0
    say(match_rows(rows))
    sensed = sensing_share(settings.calibration, settings.sensing)[0]
    where = images if isinstance(images, str) else Path(files[0]).name + ", ..." if files else "made up"
    lines = [
        *lines,
        _images_line(where, len(files), settings.data_free),
        f"sense with {sensed} of {settings.calibration} calibration images, {settings.estimator}",
        "settings " + (", ".join(f"{k}={v}" for k, v in changed.items()) or "all at their defaults"),
        *([f"out {out}"] if out else []),
    ]
    print("dry run, nothing is written:", *lines, sep="\n  ")
    return 0
