"""Train: a network of a task, from annotated data."""

from __future__ import annotations

from typing import Any

from fewer.tasks import open_task

__all__ = ["train"]


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
