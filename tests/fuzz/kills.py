"""Kill a whole verb before every one of its file operations: going on must give what never stopping gives.

Some points run with the tests. By hand, all of them::

    PYTHONPATH=src:. python tests/fuzz/kills.py            (every verb)
    PYTHONPATH=src:. python tests/fuzz/kills.py --only train-segment --every 5
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.kill_more import MORE
from tests.fuzz.kill_verbs import MAIN
from tests.fuzz.verb import Verb
from tests.support.kill import KILLED, killed_at, operations

__all__ = ["VERBS", "Points", "check", "kill_points"]

VERBS: dict[str, Verb] = {**MAIN, **MORE}
"""Every verb that leaves files."""


def _goes_on(work: Callable[[Path, bool], None], folder: Path) -> None:
    from fewer.core.errors import FewerError

    try:
        work(folder, True)
    except FewerError as error:
        if "is finished" not in str(error):
            raise


@dataclass(frozen=True)
class Points:
    """What a verb is held against.

    Attributes
    ----------
    count
        Of its file operations.
    wanted
        What it gives when nothing stops it.
    allowed
        What :attr:`~tests.fuzz.verb.Verb.always` may say: as before, or as in the end.
    """

    count: int
    wanted: Any
    allowed: tuple[Any, ...] = ()


def kill_points(verb: Verb, base: Path, place: Path) -> Points:
    """Do the work once, to know what must come of it."""
    shutil.copytree(base, place)
    before = verb.always(place) if verb.always is not None else None
    count = operations(place, verb.work, place, False)
    found = verb.result(place)
    after = verb.always(place) if verb.always is not None else None
    shutil.rmtree(place)
    return Points(count, found, (before, after))


def check(verb: Verb, base: Path, place: Path, count: int, points: Points) -> str:
    """Kill the work before an operation and go on; what is wrong with the result, or nothing.

    The folder has the same name every time: some results hold paths.
    """
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base, place)
    try:
        code = killed_at(count, place, verb.work, place, False)
        if code not in (0, KILLED):
            return f"killed before operation {count}: exit {code}"
        if verb.always is not None and verb.always(place) not in points.allowed:
            return f"killed before operation {count}: neither the old content nor the new one"
        if code == KILLED and (done := killed_at(0, place, _goes_on, verb.work, place)):
            return f"killed before operation {count}: going on ends with {done}"
        found = verb.result(place)
        return "" if found == points.wanted else f"killed before operation {count}: another result"
    except Exception as error:
        return f"killed before operation {count}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=sorted(VERBS))
    parser.add_argument("--every", type=int, default=1, help="only every so many operations")
    parser.add_argument("--last", type=int, default=0, help="only the last so many operations")
    parser.add_argument("--first", type=int, default=1, help="begin with this operation, to go on where another ended")
    parser.add_argument("--until", type=int, default=10**9, help="and end with this one")
    words = parser.parse_args()
    faults = 0
    for name in words.only or VERBS:
        with tempfile.TemporaryDirectory(prefix="fewer-kill-") as folder:
            verb, base, place = VERBS[name], Path(folder, "base"), Path(folder, "place")
            base.mkdir()
            verb.prepare(base)
            # what is imported here is there in every forked process, which then takes a fourth of the time
            shutil.copytree(base, place)
            verb.work(place, False)
            shutil.rmtree(place)
            points = kill_points(verb, base, place)
            count = points.count
            first = max(words.first, count - words.last + 1) if words.last else words.first
            kills, wrong = 0, 0
            for at in range(first, min(count, words.until) + 1, words.every):
                told = check(verb, base, place, at, points)
                kills, wrong = kills + 1, wrong + bool(told)
                print(f"  {name}: {told}\n" if told else f"  {name}: {at} of {count}\r", end="", flush=True)
            faults += wrong
            print(f"{name}: {count} operations, {kills} kills from {first} on, {wrong} faults", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
