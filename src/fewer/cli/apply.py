"""``fewer apply``: the model of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fewer.cli.flags import Shared, usable_device
from fewer.core.errors import FewerError

if TYPE_CHECKING:
    from fewer.core.plan import Plan

__all__ = ["apply"]


def apply(
    run: str,
    /,
    *,
    plan: str | None = None,
    images: str | None = None,
    shared: Shared | None = None,
) -> int:
    """Make the model of a plan from a run that was sensed, and write it with its report.

    Parameters
    ----------
    run
        A run folder with curves.
    plan
        A plan file; by default the plan.json of the run.
    images
        A folder of images; by default the one that the run was sensed with.
    """
    from fewer.cli.show import plan_table, say
    from fewer.core.plan import Plan
    from fewer.core.run import RunFolder

    shared = shared or Shared()
    usable_device(shared)
    source = RunFolder.open(run)
    curves = source.read_curves()
    if plan is None and not source.has("plan"):
        raise FewerError(f"{run} has no plan yet; make one: fewer plan {run} --budget weights=50%")
    wanted = source.read_plan() if plan is None else Plan.load(plan)
    wanted.choice(curves)  # a plan of another run is told before anything is written
    if shared.dry_run:
        say(plan_table(wanted))
        return 0
    if shared.out is None and source.has("model") and not shared.overwrite:
        raise FewerError(f"{run} already holds a model; give --out for the new one, or --overwrite")
    if shared.out is None or Path(shared.out).resolve() == Path(run).resolve():
        return _make(run, wanted, images, shared)
    names = ("config", "curves")
    copied = {name: source.file(name).read_bytes() for name in names if source.has(name)}
    with RunFolder.create(shared.out, overwrite=shared.overwrite, resume=shared.resume) as target:
        for name, data in copied.items():
            target.write_bytes(name, data)
    try:
        return _make(shared.out, wanted, images, shared)
    except FewerError:
        with RunFolder.create(shared.out, resume=True) as target:
            if not target.has("model"):
                for name in names:
                    target.file(name).unlink(missing_ok=True)
        raise


def _make(folder: str, wanted: Plan, images: str | None, shared: Shared) -> int:
    import fewer
    from fewer.cli.progress import terminal_progress
    from fewer.cli.work import command_line, show_run

    run = fewer.apply(
        folder, wanted, images=images, progress=terminal_progress(), command=command_line(), device=shared.device
    )
    return show_run(run, shared, folder)
