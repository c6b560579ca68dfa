"""``fewer predict``: what a trained network says of new data."""

from __future__ import annotations

from fewer.cli.flags import Shared, given
from fewer.cli.task_flags import TaskFlags
from fewer.core.errors import FewerError

__all__ = ["predict"]


def predict(
    run: str,
    inputs: str,
    /,
    *,
    task: str | None = None,
    settings: TaskFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Write what a trained network says of new data.

    Parameters
    ----------
    run
        A run folder of fewer train (or of fewer compress on one), or what else the task can run.
    inputs
        A folder of inputs without labels, a data set, or one file.
    task
        See: fewer list tasks. A run folder says it by itself.
    """
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json, say_would
    from fewer.tasks import task_for

    shared = shared or Shared()
    if shared.out is None:
        raise FewerError("where to? give a folder for the predictions with --out")
    doing = task_for(task, run=run, data=inputs)
    chosen = doing.predict_settings.of(given(settings), "command line")
    if shared.dry_run:
        told = f"would write predictions for {inputs} to {shared.out}"
        return say_would([told], shared.json, task=doing.name, out=shared.out)
    done = doing.predict(
        run,
        inputs,
        out=shared.out,
        settings=chosen,
        overwrite=shared.overwrite,
        resume=shared.resume,
        device=shared.device or "cpu",
        progress=terminal_progress(),
    )
    if shared.json:
        as_json(done.to_dict())
    else:
        print(*done.lines(), sep="\n")
    return 0
