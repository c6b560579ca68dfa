"""Doctor: find what is wrong with a data set, and repair what is safe."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.progress import usual_progress
from fewer.tasks import task_for

__all__ = ["doctor"]


def doctor(
    data: str | Path,
    *,
    task: str | None = None,
    fix: str | Path | None = None,
    page: str | Path | None = None,
    images: str | Path | None = None,
    overwrite: bool = False,
    progress: Any = None,
    command: str = "",
) -> Any:
    """Find what is wrong with a data set; with ``fix``, write a repaired copy there.

    Parameters
    ----------
    data
        The data set, in the form that the task reads.
    task
        A name of ``fewer list tasks``; may be left out where one task alone knows the data.
    fix
        A new folder for the repaired copy.
    page
        An HTML file for what was found, which is written also when nothing is wrong.
    images
        Folder of the images of conversations (task ``quality``); beside their file by default.
    overwrite
        Whether a page that is there may be replaced.
    progress
        Told how far it is; by default a bar in a terminal or a notebook.
    command
        The command line, for the page.

    Returns
    -------
    Checked, or (Checked, Result) with ``fix``
        See :meth:`fewer.tasks.task.Task.checkup` and :meth:`~fewer.tasks.task.Task.repair`.

    Raises
    ------
    FewerError
        When it is no data set of the task, or something cannot be written.

    Examples
    --------
    >>> import fewer
    >>> fewer.doctor("lesions/", page="checked.html").findings  # doctest: +SKIP
    ()
    """
    chosen, progress = task_for(task, data=data), progress or usual_progress()
    more: Any = {"progress": progress} if images is None else {"progress": progress, "images": images}
    if images is not None and "images" not in signature(chosen.checkup).parameters:
        raise FewerError(f"--images is for conversations about images; {data} is a data set of its own: leave it out")
    if page is not None:
        from fewer.tasks.checkup_page import check_page_path, write_checkup_page

        place = check_page_path(page, overwrite)
        found = chosen.checkup(data, **more)
        write_checkup_page(found, data, place, command)
    else:
        found = chosen.checkup(data, **more)
    return found if fix is None else (found, chosen.repair(found, fix, progress=progress))
