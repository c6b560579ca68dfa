"""Which Python files may be run to build a model: those that the user named; a file that a run names is not one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.files import real_path

__all__ = ["Trust", "check_trusted", "forget_trust", "note_run", "trust_files", "trusted_files", "trusting"]

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
        path = Path(str(file).partition(".py:")[0] + ".py" if ".py:" in str(file) else file)
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
        trust_files([trust] if isinstance(trust, (str, Path)) else trust)
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
