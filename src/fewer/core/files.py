"""Writing files so that a crash or a full disk never leaves a half-written one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NoReturn

from fewer.core.errors import FewerError

__all__ = [
    "append_line",
    "as_path",
    "atomic_write_bytes",
    "atomic_write_text",
    "explain_os_error",
    "files_below",
    "flush_file",
    "own_file",
    "real_path",
    "refuse_inputs",
    "refuse_links",
    "sync_folder",
    "unreadable",
]


def explain_os_error(error: OSError, path: Path, doing: str = "write") -> FewerError:
    """Turn an ``OSError`` into a sentence that names the file and the likely fix.

    Examples
    --------
    >>> str(explain_os_error(OSError(errno.ENOSPC, "x"), Path("run/plan.json")))
    'no space left on the disk while writing run/plan.json; free some space or choose another --out'
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FewerError(f"no space left on the disk while writing {path}; free some space or choose another --out")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FewerError(f"no permission to {doing} {path}; change its permissions or choose another place")
    if error.errno == errno.ENAMETOOLONG:
        return FewerError(f"cannot {doing} {_cut(path)}: the name is too long; choose a shorter one")
    if error.errno == errno.ELOOP:
        return FewerError(f"cannot {doing} {path}: it is a symbolic link, which is not followed; remove the link")
    if error.errno == errno.ENOENT:
        return FewerError(f"cannot {doing} {path}: it or its folder does not exist")
    return FewerError(f"cannot {doing} {path}: {error.strerror or error}")


def _cut(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 80 else f"{text[:40]}...{text[-20:]}"


def unreadable(error: OSError) -> NoReturn:
    """Raise the sentence for a folder that ``os.walk`` cannot list; by itself it passes over such a folder.

    Raises
    ------
    FewerError
        Always.
    """
    raise explain_os_error(error, Path(os.fsdecode(error.filename)), "read") from error


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and of the folders in it, in the order of their paths; linked folders are left out.

    ``Path.rglob`` passes over a folder without permission, and what lies in it would be missed in silence.

    Raises
    ------
    FewerError
        When one of the folders cannot be listed.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "b").mkdir(), (folder / "b/1.txt").touch(), (folder / "a.txt").touch()
    >>> [path.relative_to(folder).as_posix() for path in files_below(folder)]
    ['a.txt', 'b/1.txt']
    """
    walk = os.walk(folder, onerror=unreadable)
    return sorted(path for place, _, names in walk for name in names if (path := Path(place) / name).is_file())


def atomic_write_bytes(path: str | Path, data: bytes, mode: int = 0o666) -> Path:
    """Write ``data`` to ``path`` in one step: readers see the old file or the new one, never a part of one.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is then renamed
    over ``path``; a symbolic link that stands there is replaced, and what it points to is left alone. When anything
    fails the temporary file is removed and ``path`` is as it was.

    Parameters
    ----------
    path
        Of the file.
    data
        Its content.
    mode
        Permissions from the first moment on, less the umask: 0o600 is for secrets.

    Raises
    ------
    FewerError
        When the disk is full, the folder is missing or it may not be written to.

    Examples
    --------
    >>> import tempfile
    >>> atomic_write_bytes(Path(tempfile.mkdtemp()) / "a.bin", b"abc").read_bytes()
    b'abc'
    """
    path = Path(path)
    # of a long name a part: the longest that a file system takes leaves no room for more
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):  # after a success there is nothing left to remove
            temporary.unlink()
    return path


def atomic_write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text in one step; see :func:`atomic_write_bytes`.

    Examples
    --------
    >>> import tempfile
    >>> atomic_write_text(Path(tempfile.mkdtemp()) / "a.txt", "few").read_text()
    'few'
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        near = ascii(text[max(0, error.start - 30) : error.end + 10])
        raise FewerError(
            f"{path} cannot hold a name that is no valid UTF-8 (near {near}); rename that file or folder"
        ) from None
    return atomic_write_bytes(path, data)


def flush_file(path: Path) -> None:
    """Wait until a file that someone else wrote is on the disk, so that it may be renamed over another.

    Raises
    ------
    OSError
        When the disk is full or broken.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it outlives a power cut; does nothing where that is unknown."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def as_path(given: object) -> Path:
    """The path that was given.

    Raises
    ------
    FewerError
        When it is none.

    Examples
    --------
    >>> as_path("run").name
    'run'
    >>> as_path(3)
    Traceback (most recent call last):
    fewer.core.errors.FewerError: a file or folder is given by its path, and 3 (int) is none
    """
    try:
        return Path(given)  # type: ignore[arg-type]
    except TypeError:
        kind = type(given).__name__
        raise FewerError(f"a file or folder is given by its path, and {str(given)[:60]} ({kind}) is none") from None


def own_file(path: Path) -> None:
    """Give a file that has a second name (a hard link) a copy of its own, before it is changed where it stands.

    A folder that was copied with hard links, or came from someone else, else changes what it was copied from.

    Raises
    ------
    FewerError
        When the disk is full, or the folder may not be written to.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "a").write_text("1") and (folder / "b").hardlink_to(folder / "a")
    >>> own_file(folder / "b")
    >>> (folder / "b").stat().st_nlink
    1
    """
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink == 1:
        return
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        shutil.copy2(path, temporary)
        flush_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def append_line(path: Path, line: bytes, *, flush: bool = False) -> None:
    """Add one line to a file that is our own: neither through a link nor to a file that has a second name.

    Parameters
    ----------
    path
        Made when it is missing. A file with a second name (a hard link) gets a copy of its own first, so that the
        other one stays as it is.
    line
        Written with one call, so that lines of several threads do not mix.
    flush
        Wait until the line is on the disk.

    Raises
    ------
    FewerError
        When the file is a symbolic link or no ordinary file, or the disk is full.
    """
    how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        own_file(path)
        handle = os.open(path, how, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise FewerError(f"{path} is no ordinary file, so nothing is written to it; remove it")
            os.write(handle, line)
            if flush:
                os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise explain_os_error(error, path) from error


def real_path(path: str | Path) -> Path:
    """The path without links. Where they lead in a circle, it is given as it is: whoever opens it is told.

    ``Path.resolve`` has an error of its own for that.

    Examples
    --------
    >>> real_path("a/../b").name
    'b'
    """
    return Path(os.path.realpath(path))


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise a :class:`FewerError` when something that is to be written is also something that is read.

    Examples
    --------
    >>> refuse_inputs([Path("a/1.png")], [Path("a/../a/1.png")])
    Traceback (most recent call last):
    fewer.core.errors.FewerError: a/1.png is one of the inputs and is never written over; choose another --out
    """
    read = {real_path(path) for path in inputs}
    for path in outputs:
        if real_path(path) in read:
            raise FewerError(f"{path} is one of the inputs and is never written over; choose another --out")


def refuse_links(folder: Path, names: Collection[str] | None = None) -> None:
    """Raise a :class:`FewerError` if a folder that is written to holds a symbolic link, a pipe or a device.

    A folder that came from someone else could so lead what is written to any place. Its folders are looked through
    too.

    Parameters
    ----------
    folder
        What is written to.
    names
        Only these files and folders in it; by default all.
    """
    places = [folder]
    while places:
        try:
            with os.scandir(places.pop()) as entries:
                found = [entry for entry in entries if names is None or entry.name in names]
        except OSError as error:
            raise explain_os_error(error, folder, "read") from error
        for entry in found:
            if entry.is_symlink():
                raise FewerError(
                    f"{entry.path} is a symbolic link, and what is written to {folder} stays in it; remove the link"
                )
            if entry.is_dir(follow_symlinks=False):
                places.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                raise FewerError(f"{entry.path} is no ordinary file; remove it")
        names = None
