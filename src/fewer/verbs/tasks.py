"""Train, evaluate, predict and check data: verbs that a task does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewer.tasks import open_task

__all__ = ["doctor", "evaluate", "predict", "train"]


def train(data: Any, *, task: str = "segment", **options: Any) -> Any:
    """Train a network of a task.

    Parameters
    ----------
    data
        Data set, usually a folder.
    task
        ``segment``.
    **options
        As the task takes them; see :func:`fewer.tasks.segment.training.train`.

    Examples
    --------
    >>> import fewer
    >>> run = fewer.train("lesions/", out="run/")  # doctest: +SKIP
    >>> print(run.evaluation)  # doctest: +SKIP
    """
    return open_task(task).train(data, **options)


def evaluate(target: str | Path, data: str | Path, *, task: str = "segment", **options: Any) -> Any:
    """Score a run, or a folder of predictions, on annotated data; see :func:`fewer.tasks.segment.task.evaluate`.

    Examples
    --------
    >>> import fewer
    >>> fewer.evaluate("run/", "lesions/").overall.missed  # doctest: +SKIP
    0
    """
    return open_task(task).evaluate(target, data, **options)


def predict(run: str | Path, pictures: str | Path, *, task: str = "segment", **options: Any) -> Any:
    """Write predictions for images; see :func:`fewer.tasks.segment.task.predict`.

    Examples
    --------
    >>> import fewer
    >>> fewer.predict("run/", "pool/", out="masks/").masks[0]  # doctest: +SKIP
    PosixPath('masks/a.png')
    """
    return open_task(task).predict(run, pictures, **options)


def doctor(data: str | Path, *, task: str = "segment", fix: str | Path | None = None, progress: Any = None) -> Any:
    """Find what is wrong with a data set; with ``fix``, write a repaired copy there.

    Returns
    -------
    Checkup, or (Checkup, Repair) with ``fix``
        See :mod:`fewer.tasks.segment.doctor`.

    Examples
    --------
    >>> import fewer
    >>> fewer.doctor("lesions/").findings  # doctest: +SKIP
    ()
    """
    chosen = open_task(task)
    found = chosen.checkup(data, progress=progress)
    return found if fix is None else (found, chosen.repair(found, fix, progress=progress))
