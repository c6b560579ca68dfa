"""Mutate every file that fewer reads, and its flags; what comes of it must be a FewerError or a good result.

A minute of it runs with the tests. By hand, as long as you like::

    PYTHONPATH=src:. python tests/fuzz/run.py --mutations 10000 --seed 1
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import logging
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from tests.fuzz.flags import FLAGS, TooLong, limited
from tests.fuzz.more_targets import MORE
from tests.fuzz.samples import make_all
from tests.fuzz.targets import FILES
from tests.fuzz.task_targets import TASKS

MEMORY = 2**30
"""Bytes that a process may grow by, whatever a file claims."""

_WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.link"}
_CACHES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")
_state: dict[str, Any] = {"home": None, "outside": []}


def _watch(event: str, facts: tuple[Any, ...]) -> None:
    """Note every write outside of the working folder."""
    home = _state["home"]
    if home is None or not (event in _WRITES or event == "open"):
        return
    if event == "open" and not (isinstance(facts[2], int) and facts[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    place = facts[0]
    inside = facts[-1]
    if event in _WRITES and isinstance(inside, int) and inside >= 0 and isinstance(place, (str, bytes)):
        with contextlib.suppress(OSError):  # relative to a folder that is open
            place = str(Path(f"/proc/self/fd/{inside}").readlink() / os.fsdecode(place))
    if isinstance(place, (str, bytes)) and not str(Path.cwd() / os.fsdecode(place)).startswith((home, "/dev/")):
        _state["outside"].append(f"{event} {os.fsdecode(place)}")


TARGETS: dict[str, Callable[[Path, random.Random], None]] = {**FILES, **TASKS, **MORE, **FLAGS}
"""By name: something to damage, and what reads it."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the chatter of libraries, which tell a damaged header in lines of their own."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _Found(list[str]):
    """Findings, told as they come."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        super().__init__()
        self.tell, self.seen, self.done = tell, set[tuple[str, ...]](), 0

    def note(self, text: str, *place: str) -> None:
        if place not in self.seen or not place:
            self.seen.add(place)
            self.append(text)
            if self.tell is not None:
                self.tell(text)

    def broke(self, name: str, number: int, error: Exception) -> None:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/fewer/" in f.filename]
        at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        kind = type(error).__name__
        self.note(
            f"{name} {number}: {kind} at {at}: {str(error)[:600]}", name, kind, at if frames else str(error)[-80:]
        )


def fuzz(
    mutations: int,
    seed: int,
    base: Path | None = None,
    targets: list[str] | None = None,
    seconds: float = float("inf"),
    tell: Callable[[str], None] | None = None,
) -> _Found:
    """Run mutations, none that begins after ``seconds`` of CPU; what went wrong, every place of the code once."""
    until = time.process_time() + seconds
    names, found = targets or sorted(TARGETS), _Found(tell)
    old, before = dict(os.environ), sys.dont_write_bytecode
    with tempfile.TemporaryDirectory(prefix="fewer-fuzz-") as folder:
        home = Path(folder)
        # nothing of this machine's own is read, and no library that is imported meanwhile writes where it is used to
        os.environ.update({name: str(home / "cache") for name in _CACHES})
        (home / "tmp").mkdir()
        tempfile.tempdir = str(home / "tmp")  # what is put there and taken away again is nobody's
        sys.dont_write_bytecode = True
        try:
            if base is None:
                make_all(base := home / "base")
            sys.addaudithook(_watch)
            started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            for number in range(mutations):
                if time.process_time() > until:
                    break
                _mutate(names[number % len(names)], number, seed, base, home, found)
                found.done += 1
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - started
                if grown > MEMORY:
                    found.note(f"{names[number % len(names)]} {number}: memory grew by {grown / 1e6:.0f} MB")
                    started += grown
        finally:
            sys.dont_write_bytecode, tempfile.tempdir = before, None
            for name in _CACHES:
                os.environ.pop(name)
            os.environ.update({name: old[name] for name in _CACHES if name in old})
    return found


def _mutate(name: str, number: int, seed: int, base: Path, home: Path, found: _Found) -> None:
    draw, work = random.Random(f"{seed} {number}"), home / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work)
    _state["home"], _state["outside"] = str(home), []
    try:
        with _quiet(), limited(120):
            TARGETS[name](work, draw)
    except TooLong as error:
        found.note(f"{name} {number}: {error}")
    except FewerError as error:
        if len(str(error)) > 4000:
            found.note(f"{name} {number}: a sentence of {len(str(error))} characters")
    except Exception as error:
        found.broke(name, number, error)
    finally:
        _state["home"] = None
    for one in set(_state["outside"]):
        found.note(f"{name} {number}: wrote outside: {one}", name, "outside", one.partition(" ")[0])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of the processor, after which it ends")
    parser.add_argument("--base", type=Path, help="what another run of make_all has left, instead of anew")
    words = parser.parse_args()
    tell = functools.partial(print, flush=True)
    faults = fuzz(words.mutations, words.seed, words.base, words.only, words.seconds, tell)
    kinds = collections.Counter(fault.split()[0] for fault in faults)
    print(f"{faults.done} mutations, seed {words.seed}: {len(faults)} faults {dict(kinds)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
