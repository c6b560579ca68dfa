"""``fewer eval``: scores of a model, or of a folder of predictions, on annotated data."""

from __future__ import annotations

from fewer.cli.flags import Shared, given
from fewer.cli.task_flags import TaskFlags

__all__ = ["eval_"]


def eval_(
    target: str,
    data: str,
    /,
    *,
    task: str | None = None,
    settings: TaskFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Score a model or a folder of predictions on annotated data.

    Of the data that a run was trained on, only what did not train is scored.

    Parameters
    ----------
    target
        A run folder of fewer train (or of fewer compress on one), or what else the task can score.
    data
        A data set, in the form that the task reads.
    task
        See: fewer list tasks. A run folder says it by itself.
    """
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json, say_would
    from fewer.cli.work import command_line
    from fewer.tasks import task_for

    shared = shared or Shared()
    doing = task_for(task, run=target, data=data)
    chosen = doing.evaluate_settings.of(given(settings), "command line")
    if shared.dry_run:
        told = f"would score {target} on {data}" + (f" and write to {shared.out}" if shared.out else "")
        return say_would([told], shared.json, task=doing.name, out=shared.out)
    result = doing.evaluate(
        target,
        data,
        out=shared.out,
        settings=chosen,
        overwrite=shared.overwrite,
        device=shared.device or "cpu",
        progress=terminal_progress(),
        command=command_line(),
    )
    if shared.json:
        as_json(result.to_dict())
        return 0
    print(*result.lines(), sep="\n")
    if shared.out is not None:
        print(f"report  {shared.out}/evaluation.html")
    return 0
