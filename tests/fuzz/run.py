"""Mutate every file that fewer reads, and its flags; what comes of it must be a FewerError or a good result.

A minute of it runs with the tests. By hand, as long as you like::

    PYTHONPATH=src:. python tests/fuzz/run.py --mutations 10000 --seed 1
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import gc
import logging
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from fewer.core.errors import FewerError
from tests.fuzz.flags import FLAGS, TooLong, limited
from tests.fuzz.guard import Guard, Memory
from tests.fuzz.more_targets import MORE
from tests.fuzz.out_targets import OUT
from tests.fuzz.samples import make_all
from tests.fuzz.targets import FILES
from tests.fuzz.task_targets import TASKS

MEMORY = 2**30
"""Bytes that a process may grow by in one mutation, whatever a file claims."""

_CACHES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")

TARGETS: dict[str, Callable[[Path, random.Random], None]] = {**FILES, **TASKS, **MORE, **OUT, **FLAGS}
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
    """Findings, told as they come; and by target how many mutations there were, and the most memory that one took."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        super().__init__()
        self.tell, self.seen = tell, set[tuple[str, ...]]()
        self.done, self.memory = collections.Counter[str](), collections.Counter[str]()
        self.refused, self.seconds = collections.Counter[str](), collections.defaultdict[str, float](float)

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
    first: int = 0,
) -> _Found:
    """Run mutations, none that begins after ``seconds`` of CPU; what went wrong, every place of the code once."""
    until = time.process_time() + seconds
    names, found = targets or sorted(TARGETS), _Found(tell)
    old, before = dict(os.environ), sys.dont_write_bytecode
    with tempfile.TemporaryDirectory(prefix="fewer-fuzz-") as folder:
        home = Path(folder)
        # nothing of this machine's own is read, and no library that is imported meanwhile writes where it is used to
        os.environ.update({name: str(home / "cache") for name in _CACHES})
        (home / "tmp").mkdir(), (home / "cache").mkdir()
        tempfile.tempdir = str(home / "tmp")  # what is put there and taken away again is nobody's
        sys.dont_write_bytecode = True
        try:
            if base is None:
                make_all(base := home / "base")
            guard, memory = Guard(home, base), Memory()
            for number in range(first, first + mutations):
                if time.process_time() > until:
                    break
                _mutate(names[number % len(names)], number, seed, guard, memory, found)
                if tell is not None and number % 250 == 249:
                    tell(f"... {found.done.total()} mutations, {time.process_time():.0f} s, {len(found)} faults")
        finally:
            sys.dont_write_bytecode, tempfile.tempdir = before, None
            for name in _CACHES:
                os.environ.pop(name)
            os.environ.update({name: old[name] for name in _CACHES if name in old})
    return found


def _mutate(name: str, number: int, seed: int, guard: Guard, memory: Memory, found: _Found) -> None:
    draw = random.Random(f"{seed} {number}")
    guard.restore()
    if number % 25 == 0:
        gc.collect()
    memory.begin()
    began = time.process_time()
    guard.begin(name)
    try:
        with _quiet(), limited(120):
            TARGETS[name](guard.work, draw)
    except TooLong as error:
        found.note(f"{name} {number}: {error}")
    except FewerError as error:
        found.refused[name] += 1
        if len(str(error)) > 4000:
            found.note(f"{name} {number}: a sentence of {len(str(error))} characters")
    except Exception as error:
        found.broke(name, number, error)
    finally:
        wrong, grown = guard.end(), memory.end()
    found.done[name] += 1
    found.seconds[name] += time.process_time() - began
    found.memory[name] = max(found.memory[name], grown)
    if grown > MEMORY:
        found.note(f"{name} {number}: memory grew by {grown / 1e6:.0f} MB")
    for one in sorted(wrong):
        found.note(f"{name} {number}: may not have {one}", name, "outside", one)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of the processor, after which it ends")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation, to go on")
    parser.add_argument("--base", type=Path, help="what another run of make_all has left, instead of anew")
    words = parser.parse_args()
    tell = functools.partial(print, flush=True)
    faults = fuzz(words.mutations, words.seed, words.base, words.only, words.seconds, tell, words.first)
    kinds = collections.Counter(fault.split()[0] for fault in faults)
    for name, count in sorted(faults.done.items()):
        facts = (
            f"{faults.refused[name]} refused, {faults.seconds[name]:.0f} s, at most {faults.memory[name] / 1e6:.0f} MB"
        )
        print(f"{name}: {count} mutations, {facts}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{faults.done.total()} mutations from {words.first} on, seed {words.seed}, the process at most {peak:.0f} MB:"
    )
    print(f"{len(faults)} faults {dict(kinds)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
