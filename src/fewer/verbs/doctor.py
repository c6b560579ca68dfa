"""Doctor: find what is wrong with a data set, and repair what is safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewer.core.progress import usual_progress
from fewer.tasks import task_for

__all__ = ["doctor"]


def doctor(data: str | Path, *, task: str | None = None, fix: str | Path | None = None, progress: Any = None) -> Any:
    """Find what is wrong with a data set; with ``fix``, write a repaired copy there.

    Returns
    -------
    Checked, or (Checked, Result) with ``fix``
        See :meth:`fewer.tasks.task.Task.checkup` and :meth:`~fewer.tasks.task.Task.repair`.

    Examples
    --------
    >>> import fewer
    >>> fewer.doctor("lesions/").findings  # doctest: +SKIP
    ()
    """
    chosen, progress = task_for(task, data=data), progress or usual_progress()
    found = chosen.checkup(data, progress=progress)
    return found if fix is None else (found, chosen.repair(found, fix, progress=progress))
