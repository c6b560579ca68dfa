"""``fewer doctor``: what is wrong with a data set."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from fewer.cli.flags import Shared
from fewer.core.errors import FewerError

__all__ = ["doctor"]

ILL = 3
"""Exit code when errors were found, for scripts that would go on with the data."""


def doctor(
    data: str,
    /,
    *,
    task: str | None = None,
    fix: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    page: str | None = None,
    images: str | None = None,
    shared: Shared | None = None,
) -> int:
    """Find what is wrong with a data set: unreadable files, labels that do not fit, duplicates, leaks and more.

    Exit code 0: no error (warnings may be there); 3: errors were found.

    Parameters
    ----------
    data
        The data set, in the form that the task reads.
    task
        See: fewer list tasks. May be left out where one task alone knows the data.
    fix
        Write a repaired copy to --out, and say what was changed. The original stays.
    page
        An HTML file for what was found, which is written also when nothing is wrong [none]
    images
        Folder of the images of conversations (task quality) [beside their file]
    """
    import fewer
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json
    from fewer.cli.work import command_line

    shared = shared or Shared()
    if fix and shared.out is None:
        raise FewerError("where to? give a new folder for the repaired copy: --fix --out FOLDER")
    if shared.out is not None and not fix:
        raise FewerError(
            f"--out is for the repaired copy, which is made with --fix: --fix --out {shared.out}; "
            "for a page of what is found: --page checked.html"
        )
    wanted = shared.out if fix and not shared.dry_run else None
    more: dict[str, Any] = {"page": None if shared.dry_run else page, "overwrite": shared.overwrite}
    more |= {"images": images, "progress": terminal_progress(), "command": command_line()}
    found = fewer.doctor(data, task=task, fix=wanted, **more)
    found, done = found if wanted is not None else (found, None)
    if shared.json:
        as_json({**found.to_dict(), "repair": done and done.to_dict(), "page": more["page"]})
    else:
        print(*found.lines(), *(["", *done.lines()] if done is not None else []), sep="\n")
        if more["page"] is not None:
            print(f"page    {page}")
    return 0 if found.healthy else ILL
