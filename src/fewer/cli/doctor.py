"""``fewer doctor``: what is wrong with a data set."""

from __future__ import annotations

from typing import Annotated

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
    fix: Annotated[bool, Parameter(negative="")] = False,
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
    """
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json
    from fewer.tasks import task_for

    shared = shared or Shared()
    if fix and shared.out is None:
        raise FewerError("where to? give a new folder for the repaired copy: --fix --out FOLDER")
    if shared.out is not None and not fix:
        raise FewerError(f"--out is for the repaired copy, which is made with --fix: --fix --out {shared.out}")
    chosen = task_for(task, data=data)
    found = chosen.checkup(data, progress=terminal_progress())
    wanted = fix and not shared.dry_run and shared.out
    done = chosen.repair(found, shared.out or "", progress=terminal_progress()) if wanted else None
    if shared.json:
        as_json({**found.to_dict(), "repair": done and done.to_dict()})
    else:
        print(*found.lines(), *(["", *done.lines()] if done is not None else []), sep="\n")
    return 0 if found.healthy else ILL
