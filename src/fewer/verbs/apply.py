"""Apply: carry out a plan that stands in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewer.core.allocation.allocate import Allocation
from fewer.core.budget import Budget, parse_budgets
from fewer.core.errors import FewerError
from fewer.core.plan import Plan
from fewer.core.progress import Progress, timed, usual_progress
from fewer.core.run import RunFolder
from fewer.engine.apply import apply_options
from fewer.engine.evidence import Evidence
from fewer.engine.prepare import prepare
from fewer.engine.quality import quality_of
from fewer.engine.run import CompressedRun, report_on, save_run
from fewer.engine.runtimes import Chosen
from fewer.engine.sense import Sensed
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.models.artefact import state_hash
from fewer.models.reorder import read_reorderings
from fewer.models.running import Forward
from fewer.models.spec import load_named
from fewer.models.trust import Trust, trusting

__all__ = ["apply"]


def apply(
    run: str | Path,
    plan: Plan | str | Path | None = None,
    *,
    model: Any = None,
    images: Any = None,
    progress: Progress | None = None,
    command: str | None = None,
    forward: Forward | None = None,
    trust: Trust = False,
    device: str | None = None,
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
    trust
        Run the Python file that the run names its model by: True, or the file; see :func:`fewer.load`.
    device
        Where the work is done, ``cpu``, ``cuda:0`` or any other of torch; by default where the run was sensed.

    Raises
    ------
    FewerError
        When the plan does not fit the curves, or the model is not the one that was sensed.

    Examples
    --------
    >>> import fewer
    >>> fewer.apply("run/", fewer.plan("run/", "weights=40%"))  # doctest: +SKIP
    """
    progress = progress or usual_progress()
    with RunFolder.edit(run) as folder:
        curves, config = folder.read_curves(), folder.read_config()
        if plan is None:
            plan = folder.read_plan()
        elif not isinstance(plan, Plan):
            plan = Plan.load(plan)
        choice = plan.choice(curves)
        settings = Settings.of_run(config.get("settings", {}), str(folder.file("config")))
        if device is not None:
            settings = settings.model_copy(update={"device": device})
        if settings.device != "cpu" and "latency" in plan.cost:
            raise FewerError(
                f"the plan is one for time on the kernels of the CPU, not on {settings.device!r}: leave --device out"
            )
        timings: dict[str, float] = {}
        with progress.stage("match", None) as stage, timed(timings, "match"):
            with trusting(trust):
                named = model if model is not None else _from_config(config, "model", run)
            prepared = prepare(
                named,
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
        chosen_runtime = Chosen.of(curves.meta.get("device", {}))
        if chosen_runtime is not None:
            prepared.shared["runtime"] = chosen_runtime
            settings = settings.model_copy(update={"runtime": chosen_runtime.runtime})
        options = {c.unit.name: c.options for c in curves.curves}
        chosen = {c.unit.name: c.options[k] for c, k in zip(curves.curves, choice, strict=True)}
        with timed(timings, "apply"):
            tokens = curves.meta.get("tokens")
            compressed, masks = apply_options(Work(prepared, settings, progress), options, chosen, tokens=tokens)
        budgets: list[Budget] = list(parse_budgets(plan.budgets)) if plan.budgets else []
        sensed = Sensed(curves, options, [], None, {"passes": 0, "seconds": 0.0})
        allocation = Allocation(choice, plan.cost, plan.distortion)
        evidence = Evidence(
            prepared=prepared,
            settings=settings,
            sensed=sensed,
            plan=plan,
            allocation=allocation,
            model=compressed,
            masks=masks,
            budgets=budgets,
            timings=timings,
            command=command,
            quality=quality_of(prepared.loaded, config.get("labelled")),
        )
        result = report_on(evidence, None, progress)
        with folder.together():
            save_run(folder, result, {})
        folder.log("applied", distortion=result.report.verdict.distortion)
        result.folder = folder.home
        return result


def _from_config(config: dict[str, Any], name: str, run: str | Path) -> Any:
    value = config.get(name)
    if not isinstance(value, str) or (":" in value and ".py:" not in value):
        raise FewerError(f"{run} was made from a Python object ({value}); give the model again, as {name}=")
    return load_named(value, f"{run}/config.toml")
