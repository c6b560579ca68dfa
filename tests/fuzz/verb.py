"""A verb that is killed, and what must be the same in the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Verb", "digest", "files_of"]


@dataclass(frozen=True)
class Verb:
    """A verb that is killed.

    Where it says that the work is finished when it is to go on, the result must be whole as well.

    Attributes
    ----------
    prepare
        Writes into a folder what the work starts from, once.
    work
        ``work(folder, resume)`` does it in a copy of that folder.
    result
        What must be the same in the end.
    always
        What must be as before or as in the end at any moment, as a reader sees it: old content is whole until the new
        one is.
    """

    prepare: Callable[[Path], None]
    work: Callable[[Path, bool], None]
    result: Callable[[Path], Any]
    always: Callable[[Path], Any] | None = None


def files_of(place: Path) -> list[str]:
    """Names of all that a user sees below a folder."""
    shown = sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())
    return [name for name in shown if not any(part.startswith(".") for part in name.split("/"))]


def digest(folder: str, *names: str) -> Callable[[Path], Any]:
    """Contents of some files of a folder, or of all, and the names of all that a user sees in it."""

    def of(place: Path) -> dict[str, Any]:
        shown = files_of(place / folder)
        told = {n: hashlib.sha256((place / folder / n).read_bytes()).hexdigest() for n in names or shown}
        return {**told, "names": shown}

    return of
