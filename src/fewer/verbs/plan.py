"""Plan: choose options for another budget from the curves of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewer.core.allocation.baselines import BASELINES
from fewer.core.errors import FewerError, near_match
from fewer.core.plan import Plan
from fewer.core.reading import nested
from fewer.core.run import RunFolder
from fewer.engine.plan import choose

__all__ = ["plan", "save_plan"]


def plan(run: str | Path, budget: Any, *, allocator: str = "dp", out: str | Path | None = None) -> Plan:
    """Plan another budget from the curves of a run, in milliseconds.

    Parameters
    ----------
    run
        Run folder that holds curves.
    budget
        One or several budgets, ``"weights=40%"``.
    allocator
        ``dp`` or a baseline's name.
    out
        File to write the plan to; by default the run's ``plan.json`` stays as it is and the plan is only returned.

    Returns
    -------
    Plan

    Raises
    ------
    FewerError
        When the folder has no curves, the budget is not one, or it cannot be met.

    Examples
    --------
    >>> import fewer
    >>> fewer.plan("run/", "size=20MB").cost["size"]  # doctest: +SKIP
    19987654.0
    """
    from fewer.core.budget import model_budgets

    if allocator == "auto":
        raise FewerError(
            "the contest of --allocator auto measures models, and a plan has only curves; use fewer compress for it, "
            f"or choose one of dp, {', '.join(BASELINES)}"
        )
    if allocator != "dp" and allocator not in BASELINES:
        raise FewerError(f"unknown allocator '{allocator}'{near_match(allocator, ['dp', *BASELINES])}")
    folder = RunFolder.open(run)
    curves = folder.read_curves()
    budgets = model_budgets(budget)
    power = nested(curves.meta, "settings", "power") if allocator == "dp" else None
    power = float(power) if isinstance(power, (int, float)) else 0.0
    made = Plan.from_allocation(curves, budgets, choose(curves, budgets, allocator, power=power), allocator)
    if out is not None:
        save_plan(made, folder, Path(out))
    return made


def save_plan(plan: Plan, run: RunFolder, out: Path) -> Path:
    """Write a plan to a file of its own, over an earlier plan at most.

    Raises
    ------
    FewerError
        When the file is one that the run is made of, or holds anything but a plan.
    """
    run.refuse(out)
    if out.exists() and out.resolve() != run.file("plan").resolve():
        try:
            Plan.load(out)
        except FewerError as error:
            raise FewerError(
                f"{out} is there and holds no plan, so none is written over it; name another file"
            ) from error
    return plan.save(out)
