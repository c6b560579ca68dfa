"""The folder of a study: its store, the invitation codes and the images that raters learn on."""

from __future__ import annotations

from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.folder import MarkedFolder

__all__ = ["CODES", "FILE", "StudyFolder"]

FILE = "study.sqlite"
CODES = "codes.csv"
"""File with the invitation codes; whoever has it can log in as anyone."""


class StudyFolder(MarkedFolder):
    """A folder with one study: ``study.sqlite``, ``codes.csv`` and ``training/``.

    Make one with :meth:`create` as a context manager; answers are never overwritten.
    """

    MARK, MAKER, FOLDERS = ".fewer-study", "fewer study new", frozenset(["training"])
    ENDS_WITHOUT_TRACE = BaseException  # nothing half-made stays, also after Ctrl-C

    def is_part(self, name: str) -> bool:
        """The store with its journal, and the codes."""
        return name in (FILE, f"{FILE}-wal", f"{FILE}-shm", CODES)

    @classmethod
    def create(cls, path: str | Path) -> StudyFolder:
        """Make the folder and lock it.

        Raises
        ------
        FewerError
            When it holds a study or something else, or cannot be made.
        """
        study = cls(path)
        study.look()
        study.hold()
        with study.taking_over():
            study.settle()
            if (study.home / FILE).exists():
                raise FewerError(
                    f"{path} holds a study already, and its answers are never overwritten; choose another folder"
                )
            study.begin()
        return study
