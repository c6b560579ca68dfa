"""``fewer apply``: the model of a plan."""

from __future__ import annotations

from fewer.cli.flags import Shared, usable_device
from fewer.core.errors import FewerError

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
    import fewer
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json, plan_table, say
    from fewer.cli.work import command_line, show_run
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
        if shared.json:
            as_json({"dry_run": True, "plan": wanted.model_dump(), "out": shared.out or run})
        else:
            say(plan_table(wanted))
        return 0
    if shared.out is None and source.has("model") and not shared.overwrite:
        raise FewerError(f"{run} already holds a model; give --out for the new one, or --overwrite")
    made = fewer.apply(
        run, wanted, images=images, progress=terminal_progress(), command=command_line(), device=shared.device,
        out=shared.out, overwrite=bool(shared.overwrite), resume=bool(shared.resume),
    )  # fmt: skip
    return show_run(made, shared, shared.out or run)
