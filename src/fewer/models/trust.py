"""Which Python files may be run to build a model: those that the user named; a file that a run names is not one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.files import append_line, as_path, real_path
from fewer.core.reading import read_bytes

__all__ = [
    "Trust",
    "check_trusted",
    "forget_trust",
    "named_files",
    "note_run",
    "remember_named",
    "trust_files",
    "trusted_files",
    "trusting",
    "was_named",
]

Trust = bool | str | Path | Iterable[str | Path]
"""True: every file that a run names. Otherwise the files, one or several, that may be run."""

_files: set[Path] = set()
_ran: set[tuple[Path, str]] = set()  # file and content that this process was asked to run by name
_every = 0


def trust_files(files: Iterable[str | Path]) -> None:
    """Trust these files for the rest of this process.

    Raises
    ------
    FewerError
        When there is no such file: a wrong name would trust nothing, in silence.
    """
    for file in files:
        path = as_path(str(file).partition(".py:")[0] + ".py" if ".py:" in str(file) else file)
        if not path.is_file():
            raise FewerError(f"--trust {file}: there is no such file; name the Python file that may be run")
        _files.add(real_path(path))


def forget_trust() -> None:
    """Trust no file any more."""
    _files.clear()


def trusted_files() -> list[str]:
    """The files that are trusted now, for a process that this one starts.

    Those that ran here already because the user named them are among them, as long as they are unchanged.
    """
    same = {path for path, digest in _ran if path.is_file() and sha256(path.read_bytes()).hexdigest() == digest}
    return sorted(map(str, _files | same))


def note_run(path: Path, digest: str) -> None:
    """Remember that the user named a file by itself, so that its code has run in this process already."""
    _ran.add((real_path(path), digest))


def remember_named(path: Path, function: str) -> None:
    """Remember, for later processes of this user, that the user named this very function of this very file.

    It is kept in the user's own cache, where nobody who hands over a folder can write. Where that is not possible,
    nothing is remembered, and ``--trust`` is asked for.
    """
    if not path.is_file() or was_named(path, function):
        return
    with suppress(OSError, FewerError):
        place = named_files()
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        append_line(place, f"{_key(path, function)}\n".encode())
        place.chmod(0o600)


def was_named(path: Path, function: str) -> bool:
    """Whether the user named this function of this file in an earlier process, and the file is unchanged since."""
    with suppress(OSError, FewerError):
        facts = named_files().stat()
        if path.is_file() and facts.st_uid == os.getuid() and not facts.st_mode & 0o022:
            return _key(path, function).encode() in read_bytes(named_files()).split()
    return False


def named_files() -> Path:
    """The user's own list of what they have named, as hashes: below ``$XDG_CACHE_HOME``, by default ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fewer" / "named-files"


def _key(path: Path, function: str) -> str:
    """Stands for a place, a function and the whole content: none of them can be another one."""
    told = [os.fsencode(real_path(path)), function.encode("utf-8", "surrogatepass"), read_bytes(path)]
    return sha256(b"".join(sha256(part).digest() for part in told)).hexdigest()


@contextmanager
def trusting(trust: Trust) -> Iterator[None]:
    """Trust files inside of a ``with`` block.

    Examples
    --------
    >>> with trusting("no_such_file.py"):
    ...     pass
    Traceback (most recent call last):
    fewer.core.errors.FewerError: --trust no_such_file.py: there is no such file; name the Python file that may be run
    """
    global _every
    before = set(_files)
    if isinstance(trust, bool):
        _every += trust
    else:
        trust_files([trust] if isinstance(trust, (str, Path)) or not isinstance(trust, Iterable) else trust)
    try:
        yield
    finally:
        if isinstance(trust, bool):
            _every -= trust
        _files.clear()
        _files.update(before)


def check_trusted(path: Path, where: str, digest: str | None = None) -> None:
    """Raise a :class:`FewerError` unless a Python file that a run names may be run.

    Parameters
    ----------
    path
        The file.
    where
        What names it, for the message.
    digest
        SHA-256 of its content: a file that the user named in this process may be run again while it is unchanged.
    """
    resolved = real_path(path)
    if _every or resolved in _files or (digest is not None and (resolved, digest) in _ran):
        return
    raise FewerError(
        f"{where} names Python code, {path}, and loading it would run that code; look at the file, and if you trust "
        f"it give --trust {path} (in Python trust=True)"
    )
