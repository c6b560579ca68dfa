"""Writing files so that a crash or a full disk never leaves a half-written one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from fewer.core.errors import FewerError

__all__ = ["atomic_write_bytes", "atomic_write_text", "explain_os_error"]


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
    if error.errno == errno.ENOENT:
        return FewerError(f"cannot {doing} {path}: it or its folder does not exist")
    return FewerError(f"cannot {doing} {path}: {error.strerror or error}")


def atomic_write_bytes(path: str | Path, data: bytes) -> Path:
    """Write ``data`` to ``path`` in one step: readers see the old file or the new one, never a part of one.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is then renamed
    over ``path``. When anything fails the temporary file is removed and ``path`` is as it was.

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
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
    return atomic_write_bytes(path, text.encode("utf-8"))
