"""Folders that a verb makes for itself: known by a mark, never mistaken for someone else's, whole or not there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from fewer.core.errors import FewerError
from fewer.core.files import as_path, atomic_write_text, explain_os_error, refuse_links
from fewer.core.lock import LOCK, FolderLock
from fewer.core.staging import EDIT, NEXT, Staging

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["KINDS", "MarkedFolder", "finish_exchange", "open_marked"]

KINDS = {
    ".fewer-run": "run of fewer",
    ".fewer-queue": "queue of fewer select",
    ".fewer-study": "study of fewer study",
    ".fewer-circuit": "circuit of fewer private",
    ".fewer-keys": "keys of fewer private",
}
"""What a folder is, by its mark."""

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


def finish_exchange(folder: Path) -> None:
    """Put complete new content into its place where a process was killed in the midst of that, before it is read.

    Nothing happens where another process is at it, or the folder may not be written to.

    Examples
    --------
    >>> finish_exchange(Path("no-such-folder"))
    """
    pending = [found for name in (NEXT, EDIT) if (found := Staging(folder, name)).complete()]
    if not pending:
        return
    with contextlib.suppress(FewerError):
        lock = FolderLock(folder)
        lock.take()
        try:
            for staging in pending:
                if staging.complete():
                    staging.carry_on()
        finally:
            lock.release()


class MarkedFolder:
    """A folder of fewer: a mark says what it is, a lock lets one process write, and what is replaced stays until the
    new content is complete.

    A subclass says what is part of such a folder; files of others in it are never touched. As a context manager it
    puts new content into its place at the end, and leaves nothing behind when the work ended before there was anything
    to keep.

    Attributes
    ----------
    home
        Where the folder is when it is finished.
    path
        Where files are written now: aside, while old content is replaced.

    Examples
    --------
    >>> import tempfile
    >>> class Notes(MarkedFolder):
    ...     MARK, MAKER = ".fewer-notes", "fewer notes"
    ...     def is_part(self, name):
    ...         return name.endswith(".txt")
    >>> notes = Notes(Path(tempfile.mkdtemp()) / "notes")
    >>> names = notes.look()
    >>> notes.hold()
    >>> notes.begin()
    >>> with notes:
    ...     _ = (notes.path / "a.txt").write_text("one")
    >>> sorted(path.name for path in notes.home.iterdir())
    ['.fewer-notes', 'a.txt']
    """

    MARK: ClassVar[str]
    """Name of the file that says what the folder is."""
    MAKER: ClassVar[str]
    """Which command makes such folders."""
    FOLDERS: ClassVar[frozenset[str]] = frozenset()
    """Folders in it that are part of it."""
    ENDS_WITHOUT_TRACE: ClassVar[type[BaseException]] = FewerError
    """Errors after which nothing stays of work that is not worth keeping."""

    def __init__(self, path: str | Path) -> None:
        self.home = as_path(path)
        self.path = self.home
        self.begun = self.home  # where log and unfinished work are: all of the content that replaces another is aside
        self._lock = FolderLock(self.home)
        self._made: list[Path] = []  # folders that look() made, the innermost first

    def is_part(self, name: str) -> bool:
        """Whether a file of this name is part of the folder."""
        raise NotImplementedError

    def may_go(self) -> bool:
        """Whether nothing is lost when a mistake has ended the work, so that no trace of it has to stay."""
        return True

    def parts(self) -> list[str]:
        """What of the finished folder is its own: not the bookkeeping, nor files and folders of others."""
        return [path.name for path in self.home.iterdir() if self._owns(path)]

    def _owns(self, path: Path) -> bool:
        if path.name in (self.MARK, LOCK, NEXT, EDIT):
            return False
        if path.is_dir() and not path.is_symlink():
            return path.name in self.FOLDERS
        return self.is_part(path.name)

    def content(self) -> set[str]:
        """Names of everything in the folder but its bookkeeping and what a killed process left."""
        names = {path.name for path in self.home.iterdir()} - {self.MARK, LOCK, NEXT, EDIT}
        return {name for name in names if not _TEMPORARY.fullmatch(name)}

    def look(self) -> set[str]:
        """Make the folder, or look into it.

        Returns
        -------
        set of str
            What is in it, the mark included.

        Raises
        ------
        FewerError
            When it holds something without a mark, or cannot be made.
        """
        names, self._made = open_marked(self.home, self.MARK, self.MAKER)
        return names - {LOCK}

    def hold(self) -> None:
        """Take the lock; :meth:`close` lets it go.

        Raises
        ------
        FewerError
            When another process writes to the folder.
        """
        self._lock.take()

    def begin(self, *, overwrite: bool = False, resume: bool = False, interrupted: bool = False) -> None:
        """Decide where files are written, and mark the folder.

        Parameters
        ----------
        overwrite
            Old content stays until the new one is complete.
        resume
            Go on with new content that was begun.
        interrupted
            There is something to go on with, so that ``overwrite`` with ``resume`` does not start anew.
        """
        anew = Staging(self.home)
        if overwrite and not (resume and interrupted):
            anew.discard()
            if self.parts():
                anew.begin()
        if anew.exists() and (overwrite or resume):
            anew.begin()
            self.path = self.begun = anew.path
        if not (self.home / self.MARK).exists():
            atomic_write_text(self.home / self.MARK, f"This folder was made by {self.MAKER}.\n")

    @contextlib.contextmanager
    def taking_over(self) -> Iterator[None]:
        """The lock goes again where the folder cannot be taken over."""
        try:
            yield
        except (OSError, FewerError) as error:
            self.close()
            raise explain_os_error(error, self.home) if isinstance(error, OSError) else error from error

    def settle(self) -> None:
        """Finish what a killed process began: new files that are complete go to their place, a half is dropped.

        Raises
        ------
        FewerError
            When something in the folder is a link, which would lead what is written to another place.
        """
        ours = {self.MARK, LOCK, NEXT, EDIT, *self.FOLDERS}
        refuse_links(self.home, ours | {path.name for path in self.home.iterdir() if self.is_part(path.name)})
        for name in (NEXT, EDIT):
            staging = Staging(self.home, name)
            if staging.complete():
                staging.carry_on()
            elif name == EDIT:
                staging.discard()

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a folder that is there for reading; no lock is kept. What a killed process began is finished.

        Raises
        ------
        FewerError
            When it does not exist, may not be read, or is one of another kind.
        """
        folder = cls(path)
        what = KINDS.get(cls.MARK, "")
        if not folder.home.is_dir():
            raise FewerError(f"the {what.partition(' ')[0]} folder {folder.home} does not exist")
        try:
            next(folder.home.iterdir(), None)  # a folder without permission looks empty to most questions
        except OSError as error:
            raise explain_os_error(error, folder.home, "read") from error
        for mark, other in KINDS.items():
            if mark != cls.MARK and (folder.home / mark).exists():
                raise FewerError(f"{folder.home} is a {other}, not a {what}")
        finish_exchange(folder.home)
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self.begun != self.home:
                Staging(self.home).commit(self.parts())
                self.path = self.begun = self.home
            elif isinstance(error, self.ENDS_WITHOUT_TRACE) and self.may_go():
                self._unmake()
        finally:
            self.close()

    def _unmake(self) -> None:
        """Leave nothing behind; so the same command works once its input is right."""
        if self.begun != self.home:
            Staging(self.home).discard()
            return
        with contextlib.suppress(OSError):  # a folder that someone else began to use stays
            ours = {self.MARK, LOCK, *self.parts()}
            for path in self.home.iterdir():
                if path.is_dir() and path.name in ours:
                    shutil.rmtree(path)
                elif path.name in ours or _TEMPORARY.fullmatch(path.name):
                    path.unlink()
            for place in self._made:
                place.rmdir()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write files that belong together: none of them replaces an old one before all are there."""
        if self.path != self.home:  # all of the content is aside anyway
            yield
            return
        staging = Staging(self.home, EDIT)
        staging.discard()
        staging.begin()
        self.path = staging.path
        try:
            yield
            staging.commit([])
        except BaseException:
            if not staging.complete():
                staging.discard()
            raise
        finally:
            self.path = self.home

    def close(self) -> None:
        """Let the lock go. Calling it again does nothing."""
        self._lock.release()
