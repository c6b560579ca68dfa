"""``fewer recover``: train a compressed model, without labels, until a time is up."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fewer.cli.flags import LogFlags, Shared, usable_device
from fewer.core.errors import FewerError

__all__ = ["recover"]


def recover(
    run: str,
    /,
    *,
    time: Annotated[str | None, Parameter(show_default=False)] = None,
    steps: int | None = None,
    views: int | None = None,
    images: str | None = None,
    batch: Annotated[int | None, Parameter(show_default=False)] = None,
    learning_rate: Annotated[float | None, Parameter(show_default=False)] = None,
    method: str | None = None,
    logs: LogFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Win back quality that a compression lost, by training on unlabelled images; masks and precisions stay.

    The run is updated, or a new one is written with --out. An interrupted recovery goes on with --resume.

    Parameters
    ----------
    run
        A run folder of fewer compress.
    time
        How long, judging and saving included: 90s, 10min or 1.5h [10min]
    steps
        Train for so many steps instead of a time: gives the same weights every time.
    views
        Images of the least-squares fit that comes before the training; 0 leaves it out [as many as fit into half of
        the time and into memory; with --steps, twice the calibration images]
    images
        A folder of images; by default the one that the run was made with.
    batch
        Images per step [4]
    method
        A distillation method whose loss is added, for classifiers. See: fewer list distillation
    learning_rate
        How much a step changes a weight, relative to the size of its layer's weights [0.0005]
    """
    import fewer
    from fewer.cli.progress import terminal_progress
    from fewer.cli.work import command_line, show_run
    from fewer.core.duration import parse_duration

    shared = shared or Shared()
    usable_device(shared)
    if time is not None and steps is not None:
        raise FewerError("give --time or --steps, not both")
    if learning_rate is not None and not learning_rate <= 1:
        raise FewerError(
            f"--learning-rate {learning_rate:g} would change weights by more than their size in one step; the most is 1"
        )
    if time is not None:
        parse_duration(time)
    if shared.dry_run:
        return _dry_run(run, time, steps, images, shared)
    told = (("batch", batch), ("learning_rate", learning_rate), ("method", method))
    settings = {name: value for name, value in told if value is not None}
    done = fewer.recover(
        run,
        time or "10min",
        steps=steps,
        views=views,
        images=images,
        out=shared.out,
        overwrite=shared.overwrite,
        resume=shared.resume,
        settings=settings,
        seed=shared.seed,
        progress=terminal_progress(),
        command=command_line(),
        device=shared.device,
        callbacks=(logs or LogFlags()).callbacks(),
    )
    return show_run(done, shared, str(done.folder))


def _dry_run(run: str, time: str | None, steps: int | None, images: str | None, shared: Shared) -> int:
    from fewer.cli.show import as_json
    from fewer.core.run import RunFolder

    folder = RunFolder.open(run)
    if not folder.has("model"):
        raise FewerError(f"{run} holds no compressed model yet; make one with: fewer apply {run}")
    config = folder.read_config()
    how = f"{steps} steps" if steps is not None else time or "10min"
    facts = {"run": run, "model": config.get("model"), "images": images or config.get("images"), "for": how}
    facts["out"] = shared.out or run
    if shared.json:
        as_json({"dry_run": True, **facts})
    else:
        print("dry run, nothing is written:", *(f"{name} {value}" for name, value in facts.items()), sep="\n  ")
    return 0
