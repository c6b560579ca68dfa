"""Predict: write what a trained network says of new data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewer.tasks import open_task

__all__ = ["predict"]


def predict(run: str | Path, pictures: str | Path, *, task: str = "segment", **options: Any) -> Any:
    """Write predictions for images; see :func:`fewer.tasks.segment.task.predict`.

    Examples
    --------
    >>> import fewer
    >>> fewer.predict("run/", "pool/", out="masks/").masks[0]  # doctest: +SKIP
    PosixPath('masks/a.png')
    """
    return open_task(task).predict(run, pictures, **options)
