"""Train: a network of a task, from annotated data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewer.core.progress import usual_progress
from fewer.tasks import task_for
from fewer.tasks.task import knowing, take_settings
from fewer.training.callbacks import Callback, looking_on

__all__ = ["train"]


def train(
    data: Any, *, task: str | None = None, settings: Any = None, callbacks: Sequence[Callback] = (), **options: Any
) -> Any:
    """Train a network of a task.

    Parameters
    ----------
    data
        Data set, usually a folder.
    task
        A name of ``fewer list tasks``; may be left out where one task alone knows the data.
    settings
        Of the task's own class.
    callbacks
        Called before and after steps and validations, such as :class:`fewer.training.callbacks.TensorBoard`. The
        numbers of every validation are in ``history.csv`` of the run folder in any case.
    **options
        Single settings by name, and what :meth:`fewer.tasks.task.Task.train` takes: ``out``, ``overwrite``, ``resume``,
        ``progress``.

    Returns
    -------
    Result
        What the task returns.

    Raises
    ------
    FewerError
        When data and settings do not fit each other, or no task is meant.

    Examples
    --------
    >>> import fewer
    >>> run = fewer.train("lesions/", out="run/", steps=200)  # doctest: +SKIP
    >>> print(run.evaluation)  # doctest: +SKIP
    """
    doing = task_for(task, data=data)
    chosen = take_settings(doing.settings, settings, options)
    options["progress"] = options.get("progress") or usual_progress()
    with knowing("train", options, doing.settings), looking_on(callbacks):
        return doing.train(data, settings=chosen, **options)
