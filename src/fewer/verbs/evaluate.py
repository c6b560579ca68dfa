"""Evaluate: a model, or a folder of predictions, held against annotated data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewer.core.files import as_path
from fewer.core.folder import finish_exchange
from fewer.core.progress import usual_progress
from fewer.tasks import task_for
from fewer.tasks.task import knowing, take_settings

__all__ = ["evaluate"]


def evaluate(
    target: str | Path, data: str | Path, *, task: str | None = None, settings: Any = None, **options: Any
) -> Any:
    """Score a model, or a folder of predictions, on annotated data.

    Parameters
    ----------
    target
        Run folder, or what else the task can score.
    data
        Annotated data.
    task
        A name of ``fewer list tasks``; a run folder says it by itself.
    settings
        Of the task's class ``evaluate_settings``.
    **options
        Single settings by name, and what :meth:`fewer.tasks.task.Task.evaluate` takes.

    Examples
    --------
    >>> import fewer
    >>> fewer.evaluate("run/", "lesions/").overall.missed  # doctest: +SKIP
    0
    """
    finish_exchange(as_path(target))  # predictions that a process was killed over
    doing = task_for(task, run=target, data=data)
    chosen = take_settings(doing.evaluate_settings, settings, options)
    options["progress"] = options.get("progress") or usual_progress()
    with knowing("evaluate", options, doing.evaluate_settings):
        return doing.evaluate(target, data, settings=chosen, **options)
