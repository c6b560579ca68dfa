"""Predict: write what a trained network says of new data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewer.core.progress import usual_progress
from fewer.tasks import task_for
from fewer.tasks.task import knowing, take_settings

__all__ = ["predict"]


def predict(
    run: str | Path, inputs: str | Path, *, task: str | None = None, settings: Any = None, **options: Any
) -> Any:
    """Write predictions for new data.

    Parameters
    ----------
    run
        Run folder, or what else the task can run.
    inputs
        Folder without labels, data set, or one file.
    task
        A name of ``fewer list tasks``; a run folder says it by itself.
    settings
        Of the task's class ``predict_settings``.
    **options
        Single settings by name, and what :meth:`fewer.tasks.task.Task.predict` takes; ``out`` is needed.

    Examples
    --------
    >>> import fewer
    >>> fewer.predict("run/", "pool/", out="masks/").masks[0]  # doctest: +SKIP
    PosixPath('masks/a.png')
    """
    doing = task_for(task, run=run, data=inputs)
    chosen = take_settings(doing.predict_settings, settings, options)
    options["progress"] = options.get("progress") or usual_progress()
    with knowing("predict", options, doing.predict_settings):
        return doing.predict(run, inputs, settings=chosen, **options)
