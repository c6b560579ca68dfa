"""Doctor: find what is wrong with a data set, and repair what is safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewer.tasks import open_task

__all__ = ["doctor"]


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
