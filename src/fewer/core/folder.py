"""Folders that a verb makes for itself: known by a mark, never mistaken for someone else's."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error
from fewer.core.lock import LOCK

__all__ = ["open_marked"]

_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")  # of fewer.core.files


def open_marked(folder: Path, mark: str, maker: str) -> tuple[set[str], list[Path]]:
    """Make a folder, or look into one that was made before.

    Parameters
    ----------
    folder
        Parents are made.
    mark
        Name of the file that says whose the folder is; the caller writes it.
    maker
        Who makes such folders, for the message.

    Returns
    -------
    names, made
        What the folder holds, and the folders that were made, the innermost first.

    Raises
    ------
    FewerError
        When it is a file, cannot be made, or holds something without the mark.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "queue"
    >>> names, made = open_marked(place, ".mark", "fewer")
    >>> names, made == [place]
    (set(), True)
    """
    try:
        if os.path.lexists(folder) and not folder.is_dir():
            raise FewerError(f"{folder} is a file, not a folder; choose another --out")
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        names = {p.name for p in folder.iterdir()}
    except OSError as error:
        raise explain_os_error(error, folder, "make the folder") from error
    except ValueError as error:  # a null character
        raise FewerError(f"{str(folder)!r} is no name of a folder: {error}") from None
    # a process that was killed before it wrote the mark left its lock, or a temporary file
    if mark not in names and any(name != LOCK and not _TEMPORARY.fullmatch(name) for name in names):
        raise FewerError(f"{folder} is not empty and was not made by {maker}; choose another --out")
    return {name for name in names if not _TEMPORARY.fullmatch(name)}, made
