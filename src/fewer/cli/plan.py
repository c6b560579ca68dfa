"""``fewer plan``: another budget from the same curves, in milliseconds."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fewer.cli.flags import Shared
from fewer.core.allocation.baselines import BASELINES
from fewer.core.errors import FewerError
from fewer.engine.plan import BETWEEN

__all__ = ["plan"]


def contest_note(method: str) -> str:
    """What this plan has not been through. ``method`` is that of the run's own plan."""
    if method.startswith("auto:"):
        won = method.removeprefix("auto:")
        if won not in BASELINES:
            way = f"a plan halfway to {BETWEEN[won]}" if won in BETWEEN else f"another way ({won})"
            return f"planned from curves alone; in this run's contest {way} was better than dp"
        return (
            f"planned from curves alone; in this run's contest {won} was better than dp: try --allocator {won} as well"
        )
    return "planned from curves alone; fewer compress would also measure the plans of lamp, erk and uniform beside it"


def plan(
    run: str,
    /,
    *,
    budget: Annotated[list[str] | None, Parameter(negative="", alias="-b")] = None,
    allocator: str = "dp",
    shared: Shared | None = None,
) -> int:
    """Plan another budget from the curves of a run, and show what would change.

    A run that was only sensed gets the plan as its plan.json. Where a model was already made by another plan, nothing
    is written unless --out names a file. Only curves are looked at: the contest of allocators that fewer compress holds
    (--allocator auto) needs models, which are not made here.

    Parameters
    ----------
    run
        A run folder.
    budget
        weights=40%, flops=0.5x, size=8MB; several with commas, all hold at once.
    allocator
        dp, uniform, uniform_plus, erk, global_magnitude or lamp; no contest is held here.
    """
    from fewer.cli.show import as_json, plan_table, say
    from fewer.core.run import RunFolder

    shared = shared or Shared()
    if not budget:
        raise FewerError("which budget? give one, for example --budget weights=50%")
    from fewer.core.budget import model_budgets
    from fewer.verbs.plan import plan as make_plan
    from fewer.verbs.plan import save_plan

    model_budgets(budget)  # a bad budget is told before a folder is opened
    folder = RunFolder.open(run)
    before = folder.read_plan() if folder.has("plan") else None
    made = make_plan(run, budget, allocator=allocator)
    out = Path(shared.out) if shared.out else None if folder.has("model") else folder.file("plan")
    if out is not None and out.is_dir():
        out = out / "plan.json"
    if out is not None and out.exists() and shared.out and not shared.overwrite and not shared.dry_run:
        raise FewerError(f"{out} exists already; give another --out, or --overwrite")
    if out is not None and not shared.dry_run:
        save_plan(made, folder, out)
    if shared.json:
        as_json(made.model_dump())
        return 0
    say(plan_table(made, before))
    if allocator == "dp":
        say(contest_note(before.method if before else ""))
    then = f"fewer apply {shlex.quote(run)}"
    if out is None:
        say(f"nothing was written; to use it: --out plan.json, then {then} --plan plan.json --out NEW")
    elif not shared.dry_run:
        say(f"wrote {out}; next: {then}" + (f" --plan {shlex.quote(str(out))}" if out != folder.file("plan") else ""))
    return 0
