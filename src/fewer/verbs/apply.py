"""Apply: carry out a plan that stands in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from fewer.core.allocation.allocate import Allocation
from fewer.core.budget import parse_budgets
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.core.options import RunOptions, split_options
from fewer.core.plan import Plan
from fewer.core.progress import timed, usual_progress
from fewer.core.reading import read_bytes
from fewer.core.run import RunFolder
from fewer.engine.apply import apply_options
from fewer.engine.evidence import Evidence
from fewer.engine.outer import outer_of
from fewer.engine.prepare import Prepared, prepare
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

_CARRIED = ("config", "curves")
"""What another folder needs of the run, so that plans can be made there as well."""


def apply(
    run: str | Path,
    plan: Plan | str | Path | None = None,
    *,
    model: Any = None,
    images: Any = None,
    out: str | Path | None = None,
    forward: Forward | None = None,
    trust: Trust = False,
    device: str | None = None,
    **options: Unpack[RunOptions],
) -> CompressedRun:
    """Make the model of a plan, and write it and its report into the run folder, or into another.

    Parameters
    ----------
    run
        Run folder with curves.
    plan
        A plan, its file, or None for the folder's ``plan.json``.
    model, images
        By default those that the run's ``config.toml`` names; needed when they were Python objects.
    out
        Another run folder for the result; curves and configuration come along. By default the folder of the run.
    forward
        As for :func:`fewer.compress`.
    trust
        Run the Python file that the run names its model by: True, or the file; see :func:`fewer.load`.
    device
        Where the work is done, ``cpu``, ``cuda:0`` or any other of torch; by default where the run was sensed.
    **options
        ``overwrite`` and ``resume`` say what to do with a run that is in ``out``: it stays whole until the new one is
        complete; or its files are kept and those of this one replace them. ``progress`` and ``command`` are as for
        :func:`fewer.compress`.

    Raises
    ------
    FewerError
        When the plan does not fit the curves, or the model is not the one that was sensed.

    Examples
    --------
    >>> import fewer
    >>> fewer.apply("run/", fewer.plan("run/", "weights=40%"))  # doctest: +SKIP
    """
    own, _ = split_options("apply", options, (*RunOptions.__annotations__,), ())
    progress = own.get("progress") or usual_progress()
    with _target(run, out, bool(own.get("overwrite")), bool(own.get("resume"))) as folder:
        source = folder if folder.home == Path(run) else RunFolder.open(run)
        curves, config = source.read_curves(), source.read_config()
        if plan is None:
            plan = source.read_plan()
        elif not isinstance(plan, Plan):
            plan = Plan.load(plan)
        choice = plan.choice(curves)
        settings = _settings(source, config, plan, device)
        timings: dict[str, float] = {}
        with progress.stage("match", None) as stage, timed(timings, "match"):
            with trusting(trust):
                named = model if model is not None else _from_config(config, "model", run)
            shown = images if images is not None else config.get("images")
            prepared = prepare(named, shown, settings, forward, read_reorderings(curves.meta.get("reorderings", ())))
            stage.advance()
        settings = _as_sensed(prepared, settings, curves, run)
        known = {c.unit.name: c.options for c in curves.curves}
        chosen = {c.unit.name: c.options[k] for c, k in zip(curves.curves, choice, strict=True)}
        with timed(timings, "apply"):
            outer = outer_of(curves)
            compressed, masks = apply_options(Work(prepared, settings, progress), known, chosen, outer=outer)
        evidence = Evidence(
            prepared=prepared,
            settings=settings,
            sensed=Sensed(curves, known, [], None, {"passes": 0, "seconds": 0.0}),
            plan=plan,
            allocation=Allocation(choice, plan.cost, plan.distortion),
            model=compressed,
            masks=masks,
            budgets=list(parse_budgets(plan.budgets)) if plan.budgets else [],
            timings=timings,
            command=own.get("command"),
            quality=quality_of(prepared.loaded, config.get("labelled")),
        )
        result = report_on(evidence, None, progress)
        with folder.together():
            if source is not folder:
                for name in _CARRIED:
                    folder.write_bytes(name, read_bytes(source.file(name), 2**30))
            save_run(folder, result, {})
        folder.log("applied", distortion=result.report.verdict.distortion)
        result.folder = folder.home
        return result


def _target(run: str | Path, out: str | Path | None, overwrite: bool, resume: bool) -> RunFolder:
    """The folder that is written to: that of the run, or another."""
    if out is None or real_path(out) == real_path(run):
        return RunFolder.edit(run)
    RunFolder.open(run).read_curves()  # before another folder is made
    return RunFolder.create(out, overwrite=overwrite, resume=resume)


def _settings(folder: RunFolder, config: dict[str, Any], plan: Plan, device: str | None) -> Settings:
    """Those of the run, on another device if one is given."""
    settings = Settings.of_run(config.get("settings", {}), str(folder.file("config")))
    if device is not None:
        settings = settings.model_copy(update={"device": device})
    if settings.device != "cpu" and "latency" in plan.cost:
        raise FewerError(
            f"the plan is one for time on the kernels of the CPU, not on {settings.device!r}: leave --device out"
        )
    return settings


def _as_sensed(prepared: Prepared, settings: Settings, curves: CurveSet, run: str | Path) -> Settings:
    """Check that the model is the one of the curves, and go on with the runtime that they were sensed for."""
    if state_hash(prepared.model) != curves.meta.get("state"):
        raise FewerError(
            f"the model {prepared.loaded.name} has other weights than the one that was sensed "
            f"({curves.meta.get('model')}); load the same weights in it, or sense it again with: fewer sense"
        )
    runtime = Chosen.of(curves.meta.get("device", {}))
    if runtime is None:
        return settings
    prepared.shared["runtime"] = runtime
    return settings.model_copy(update={"runtime": runtime.runtime})


def _from_config(config: dict[str, Any], name: str, run: str | Path) -> Any:
    value = config.get(name)
    if not isinstance(value, str) or (":" in value and ".py:" not in value):
        raise FewerError(f"{run} was made from a Python object ({value}); give the model again, as {name}=")
    return load_named(value, str(Path(run) / "config.toml"))
