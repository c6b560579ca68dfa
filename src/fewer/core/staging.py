"""A folder is made anew beside its old content, which stays whole until the new one is complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.files import (
    atomic_write_bytes,
    atomic_write_text,
    explain_os_error,
    flush_file,
    refuse_links,
    sync_folder,
)
from fewer.core.reading import read_json

__all__ = ["EDIT", "NEXT", "Staging", "write_together"]

NEXT, EDIT = ".next", ".edit"
"""Folders inside of a folder, in which its new content is made: all of it, or some files that belong together."""

_COMMIT = ".commit"  # says that the new content is complete, and what of the old one goes
_BEGUN = ".begun"  # says that the folder is one of these, and no one else's that has its name


class Staging:
    """The new content of a folder, under ``.next`` until it is complete.

    It is then moved into its place file by file, after a note that says so: a process that is killed in the midst of
    that leaves what the next one carries on. Until the note is written the old content is untouched.

    Parameters
    ----------
    home
        The folder; the caller holds its lock.
    name
        Of the folder inside.

    Examples
    --------
    >>> import tempfile
    >>> home = Path(tempfile.mkdtemp())
    >>> _ = (home / "plan.json").write_text("old")
    >>> staging = Staging(home)
    >>> staging.begin()
    >>> _ = (staging.path / "plan.json").write_text("new")
    >>> (home / "plan.json").read_text()
    'old'
    >>> staging.commit(["plan.json"])
    >>> (home / "plan.json").read_text(), staging.exists()
    ('new', False)
    """

    def __init__(self, home: Path, name: str = NEXT) -> None:
        self.home = home
        self.path = home / name

    def exists(self) -> bool:
        """Whether new content was begun and neither put into its place nor thrown away."""
        return self.path.is_dir() and not self.path.is_symlink()

    def complete(self) -> bool:
        """Whether new content waits to be moved into its place: a process was killed in the midst of that."""
        return self.exists() and (self.path / _COMMIT).is_file()

    def begin(self) -> None:
        """Make the folder, or take over what an interrupted process left in it.

        Raises
        ------
        FewerError
            When it cannot be made, or is not one that fewer made.
        """
        try:
            if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
                raise FewerError(f"{self.path} is not a folder that fewer made; remove it")
            self.path.mkdir(exist_ok=True)
            refuse_links(self.path)
            (self.path / _BEGUN).touch()
        except OSError as error:
            raise explain_os_error(error, self.path, "make the folder") from error

    def commit(self, replaced: Collection[str]) -> None:
        """Put the new content into its place.

        Parameters
        ----------
        replaced
            Files and folders of the old content that go, also where the new one has none of that name. Into other
            folders that are there, what is new is put file by file.

        Raises
        ------
        FewerError
            When something cannot be moved.
        """
        try:
            for path in self.path.iterdir():
                _flush(path)
            names = sorted(path.name for path in self.path.iterdir() if path.name not in (_COMMIT, _BEGUN))
            text = json.dumps({"replaced": sorted(replaced), "new": names})
            atomic_write_text(self.path / _COMMIT, text + "\n")
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        self.carry_on()

    def carry_on(self) -> None:
        """Move complete new content into its place; may be called again after it was interrupted.

        Raises
        ------
        FewerError
            When the note is not one that fewer wrote, or something cannot be moved.
        """
        note = read_json(self.path / _COMMIT, 2**24)
        try:
            new, replaced = list(note["new"]), list(note["replaced"])
        except (TypeError, KeyError):
            raise FewerError(f"{self.path / _COMMIT} was not written by fewer; remove {self.path}") from None
        for name in (*new, *replaced):
            odd = not isinstance(name, str) or name != Path(name).name or "\0" in name
            if odd or name in ("", ".", "..", NEXT, EDIT):
                raise FewerError(f"{self.path / _COMMIT} was not written by fewer; remove {self.path}")
        refuse_links(self.path)
        try:
            for name in replaced:
                if name not in new:
                    _remove(self.home / name)
            for name in new:
                if (self.path / name).exists():
                    _move(self.path / name, self.home / name, merge=name not in replaced)
            sync_folder(self.home)
            self.discard()
        except OSError as error:
            raise explain_os_error(error, self.home) from error

    def discard(self) -> None:
        """Throw the new content away; the note goes last, so that no half of it is ever moved."""
        if not self.exists():
            return
        last = (_COMMIT, _BEGUN)
        for path in sorted(self.path.iterdir(), key=lambda p: last.index(p.name) if p.name in last else -1):
            _remove(path)
        self.path.rmdir()

    def refuse_foreign(self) -> None:
        """In a folder without a mark: never take over, or throw away, what someone else keeps under this name.

        Raises
        ------
        FewerError
            When it holds something and was not begun here.
        """
        if self.exists() and not (self.path / _BEGUN).exists() and not self.complete() and any(self.path.iterdir()):
            raise FewerError(f"{self.path} is not a folder that fewer made; move it away, or give another --out")


def write_together(folder: Path, contents: Mapping[str, str | bytes], secret: Collection[str] = ()) -> list[Path]:
    """Write files that belong together into a folder: none replaces an old one before all are there.

    Parameters
    ----------
    folder
        That is there.
    contents
        Text or bytes by the name of the file.
    secret
        Which of them nobody but their owner may read, not for a moment.

    Examples
    --------
    >>> import tempfile
    >>> [path.name for path in write_together(Path(tempfile.mkdtemp()), {"a.csv": "1", "a.bin": b"1"})]
    ['a.csv', 'a.bin']
    """
    staging = Staging(folder, EDIT)
    staging.refuse_foreign()
    if staging.complete():
        staging.carry_on()
    staging.discard()
    staging.begin()
    for name, content in contents.items():
        if isinstance(content, str):
            atomic_write_text(staging.path / name, content)
        else:
            atomic_write_bytes(staging.path / name, content, 0o600 if name in secret else 0o666)
    staging.commit([])
    return [folder / name for name in contents]


def _move(source: Path, target: Path, merge: bool) -> None:
    """Put a file or a folder into its place; what is in a folder there goes, or stays beside the new files."""
    if merge and source.is_dir() and target.is_dir() and not target.is_symlink():
        for inner in sorted(source.iterdir()):
            _move(inner, target / inner.name, merge)
        source.rmdir()
        return
    _remove(target, keep_file=True)
    source.replace(target)


def _remove(path: Path, keep_file: bool = False) -> None:
    """Remove a file, a link or a whole folder; with ``keep_file`` only a folder, as a file is replaced in one step."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif not keep_file:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Flush a file, or everything in a folder, to the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            _flush(inner)
        sync_folder(path)
        return
    flush_file(path)
