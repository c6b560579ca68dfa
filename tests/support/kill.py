"""Kill a piece of work right before any one of its file operations, as a power cut or ``kill -9`` would."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["killed_at", "operations"]

EVENTS = {
    "open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "sqlite3.connect",
}  # fmt: skip
KILLED, FAILED = 9, 10


def killed_at(count: int, place: Path, work: Callable[..., Any], *args: Any) -> int:
    """Run ``work(*args)`` in a forked process that dies before its ``count``-th file operation below ``place``.

    Returns
    -------
    int
        0 where the work ended before that, :data:`KILLED` otherwise; :data:`FAILED` where it raised an error.
    """
    return _child(count, place, work, args)[0]


def operations(place: Path, work: Callable[..., Any], *args: Any) -> int:
    """How many file operations below ``place`` the work has; it is done."""
    code, done = _child(0, place, work, args)
    assert code == 0, "the work fails when nothing kills it"
    return done


def _child(count: int, place: Path, work: Callable[..., Any], args: tuple[Any, ...]) -> tuple[int, int]:
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), int(text or 0)
    os.close(reader)
    done, inside = 0, str(place)

    def hook(event: str, facts: tuple[Any, ...]) -> None:
        nonlocal done
        if event in EVENTS and inside in str(facts[0]):
            # a file that is only read changes nothing
            if event == "open" and not (isinstance(facts[2], int) and facts[2] & (os.O_WRONLY | os.O_RDWR)):
                return
            done += 1
            if done == count:
                os._exit(KILLED)

    code = FAILED
    try:
        sys.addaudithook(hook)
        work(*args)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os.write(writer, str(done).encode())
        os._exit(code)
