"""Evaluate: a run, or a folder of predictions, held against annotated data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewer.tasks import open_task

__all__ = ["evaluate"]


def evaluate(target: str | Path, data: str | Path, *, task: str = "segment", **options: Any) -> Any:
    """Score a run, or a folder of predictions, on annotated data; see :func:`fewer.tasks.segment.task.evaluate`.

    Examples
    --------
    >>> import fewer
    >>> fewer.evaluate("run/", "lesions/").overall.missed  # doctest: +SKIP
    0
    """
    return open_task(task).evaluate(target, data, **options)
