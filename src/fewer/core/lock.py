"""One writer per folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error

__all__ = ["LOCK", "FolderLock"]

LOCK = ".lock"
"""Name of the lock file."""


class FolderLock:
    """The right to write into a folder.

    The operating system lets the lock of a process go when it ends, however it ends, so a lock file that was left
    behind is never in the way.

    Parameters
    ----------
    folder
        Must exist when the lock is taken.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> first, second = FolderLock(folder), FolderLock(folder)
    >>> first.take()
    >>> try:
    ...     second.take()
    ... except FewerError as error:
    ...     print("is in use by process" in str(error))
    True
    >>> first.release()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle: int | None = None  # of the lock file, while it is held

    def take(self) -> None:
        """Take the lock.

        Raises
        ------
        FewerError
            When another process has it (the sentence names it), or the folder cannot be written to.
        """
        path = self.folder / LOCK
        while True:
            try:
                # a folder from someone else may have a link here, which would lead what is written to any file
                handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise explain_os_error(error, path) from error
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
                os.close(handle)
                raise FewerError(f"{path} is not a lock that fewer made: it is also another file; remove it")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same_file(handle, path):
                    os.ftruncate(handle, 0)
                    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
                    self._handle = handle
                    return
                os.close(handle)  # the former owner removed the file between our two steps: take the new one
            except BlockingIOError:
                who = os.read(handle, 200).decode(errors="replace") or "another process"
                os.close(handle)
                raise FewerError(f"{self.folder} is in use by {who}; wait for it or choose another --out") from None
            except OSError as error:
                os.close(handle)
                raise explain_os_error(error, path, "lock") from error

    def release(self) -> None:
        """Let the lock go. Calling it again does nothing."""
        if self._handle is not None:
            with contextlib.suppress(OSError):  # removed while it is still held, so nobody else's lock is hit
                (self.folder / LOCK).unlink()
            os.close(self._handle)
            self._handle = None


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
