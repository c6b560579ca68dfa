"""What a mutation may not do, and how that is seen: write elsewhere, change what it only reads, or take much memory."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

__all__ = ["Guard", "Memory", "restore"]

_WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.link", "os.chmod"}
_OPENED_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_TESTS, _PRODUCT = f"{os.sep}tests{os.sep}fuzz{os.sep}", f"{os.sep}fewer{os.sep}"

OUTPUTS: dict[str, tuple[str, ...]] = {
    # verbs that work on a folder in place
    "plan": ("run",), "curves": ("run",), "report": ("run",), "log": ("run",), "queue": ("queue",),
    "continued": ("queue",), "applied": ("run",), "pages": ("trained",), "interrupted": ("interrupted",),
    "tuned": ("said",), "rows": ("study", "exported-study"), "adapted": ("adapted/run", "predicted"),
    "moved": ("run", "exported", "circuit", "keys", "queue", "study"), "keys": ("keys", "new-keys"),
    "exported": ("exported",), "study": ("study", "exported"), "own_weights": ("own.pt",),
    # verbs that make a new one
    "circuit": ("new-keys",), "inputs": ("predicted",), "trained": ("predicted",),
    "scores": ("guessed",), "sets": ("repaired",), "predictions": ("q2",),
}  # fmt: skip
"""Below the working folder, what the product may change where a target lets it work; nothing by default."""


MAY: set[str] = set()
"""What a mutation that is under way may change beside :data:`OUTPUTS`: a target adds to it what it asks for.

``folder/*`` stands for new files in a folder, whose old ones stay.
"""


def _asked(event: str, facts: tuple[Any, ...]) -> list[Path]:
    """Every path that an audited operation changes, without links in the folders that lead to it."""
    if event == "open":
        if not (isinstance(facts[2], int) and facts[2] & _OPENED_TO_WRITE):
            return []
        named = [(facts[0], -1)]
    elif event == "os.rename":
        named = [(facts[0], facts[2]), (facts[1], facts[3])]
    elif event in ("os.symlink", "os.link"):
        named = [(facts[1], facts[-1])]
    else:
        named = [(facts[0], facts[-1] if event != "os.truncate" else -1)]
    found = []
    for place, inside in named:
        if not isinstance(place, (str, bytes, os.PathLike)):
            continue  # an open file, which was seen when it was opened
        path = Path(os.fsdecode(place))
        if isinstance(inside, int) and inside >= 0:
            with contextlib.suppress(OSError):  # relative to a folder that is open
                path = Path(f"/proc/self/fd/{inside}").readlink() / path
        with contextlib.suppress(OSError, ValueError):
            followed = event in ("open", "os.truncate", "os.chmod")
            whole = os.path.realpath(path) if followed else os.path.realpath(path.parent) + os.sep + path.name
            found.append(Path(os.path.normpath(whole)))
    return found


def _by_test() -> bool:
    """Whether the innermost of our own frames is one of the fuzzer: it damages a file, it does not test one."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if _TESTS in name and not name.endswith("guard.py"):
            return True
        if _PRODUCT in name and "/tests/" not in name:
            return False
        frame = frame.f_back
    return False


def within(name: str, folder: str) -> bool:
    """Whether a name is a folder's, or of what is in it; all is in the folder ``.``."""
    return folder == "." or name == folder or name.startswith(f"{folder}/")


def _look(folder: Path) -> dict[str, tuple[int, ...]]:
    """What stands for the content of every file: its kind, size, time and number."""
    found, places = {}, [""]
    while places:
        inside = places.pop()
        with os.scandir(f"{folder}/{inside}") as entries:
            for entry in entries:
                name = f"{inside}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    found[name] = (stat.S_IFDIR,)
                    places.append(f"{name}/")
                else:
                    facts = entry.stat(follow_symlinks=False)
                    found[name] = (stat.S_IFMT(facts.st_mode), facts.st_size, facts.st_mtime_ns)
    return found


def restore(base: Path, work: Path, wanted: dict[str, tuple[int, ...]] | None = None) -> None:
    """Make a working folder what the base is; only what differs is copied, which is most of the speed of the fuzzer."""
    if not work.is_dir():
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work, symlinks=True)
        return
    wanted, found = wanted or _look(base), _look(work)
    for name in sorted(found, reverse=True):
        if found[name] != wanted.get(name):
            path = work / name
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for name in sorted(wanted):
        if found.get(name) != wanted[name] or not os.path.lexists(work / name):
            if (base / name).is_dir():
                (work / name).mkdir(exist_ok=True)
            else:
                shutil.copy2(base / name, work / name, follow_symlinks=False)


class Guard:
    """Watches what is written, by the audit hook while it happens and by comparing files afterwards.

    The hook sees what Python opens, renames and removes; a library's own code is seen by the comparison alone.

    Parameters
    ----------
    home
        Of the fuzzer: ``home/base`` must stay as it is, a mutation works in ``home/work``, and what libraries keep for
        themselves goes to ``home/tmp`` and ``home/cache``.
    """

    def __init__(self, home: Path, base: Path) -> None:
        self.home, self.base, self.work = Path(os.path.realpath(home)), base, home / "work"
        self._target: str | None = None  # while one is watched
        self._damaged: set[str] = set()  # by the fuzzer itself, below the working folder
        self.found: set[str] = set()
        self._before, self._beside, self._count = _look(base), self._neighbours(), 0
        sys.addaudithook(self._see)

    def _neighbours(self) -> set[str]:
        return {path.name for path in self.home.iterdir()}

    def restore(self) -> None:
        """Make the working folder what the base is."""
        restore(self.base, self.work, self._before)

    def begin(self, target: str) -> None:
        """Watch from here on."""
        MAY.clear()
        self._damaged, self.found, self._target = set(), set(), target

    def end(self) -> set[str]:
        """Watch no more.

        Returns
        -------
        set of str
            What was done that may not be done.
        """
        target, self._target = self._target, None
        assert target is not None
        found = _look(self.work) if self.work.is_dir() else {}
        for name, told in self._before.items():
            if found.get(name) != told and not self._may(target, name) and name not in self._damaged:
                self.found.add(f"changed {name}")
        for name in found.keys() - self._before.keys():
            if not self._may(target, name) and name not in self._damaged:
                self.found.add(f"left {name}")
        for name in self._neighbours() - self._beside - {"work"}:
            self.found.add(f"left {name} beside the working folder")
        self._count += 1
        if self._count % 20 == 1 and _look(self.base) != self._before:
            self.found.add("changed the base")
        return self.found

    def _may(self, target: str, name: str) -> bool:
        """Whether the product may change a file, or a folder that leads to one which it may."""
        if target.startswith("flags-"):
            into = name.rpartition("/")[0]  # a new folder of any name, but no new file in a folder that was there
            new = name not in self._before and (into == "" or into not in self._before)
            return new or _may_flag(target, name)
        outputs = (*OUTPUTS.get(target, ()), *MAY)
        if name not in self._before and any(one.endswith("/*") and within(name, one[:-2]) for one in MAY):
            return True  # new files in a folder that is there
        return any(within(name, one) or one.startswith(f"{name}/") for one in outputs)

    def _see(self, event: str, facts: tuple[Any, ...]) -> None:
        if self._target is None or not (event in _WRITES or event == "open"):
            return
        for path in _asked(event, facts):
            if path.is_relative_to("/dev") or path.is_relative_to("/proc"):
                continue
            if not path.is_relative_to(self.home):
                self.found.add(f"{event} {path}")
                continue
            name = path.relative_to(self.home).as_posix()
            first, _, inner = name.partition("/")
            if first in ("tmp", "cache"):
                continue
            if first != "work":
                self.found.add(f"{event} {name} beside the working folder")
            elif _by_test():
                self._note(inner)
            elif event == "os.mkdir" and inner in self._before:
                continue  # which changes nothing where something is
            elif inner in self._before and not self._may(self._target, inner):
                self.found.add(f"{event} {inner}")

    def _note(self, name: str) -> None:
        """The fuzzer itself made or damaged a file; folders that lead to it are its own, too."""
        while name:
            self._damaged.add(name)
            name = name.rpartition("/")[0]


def _may_flag(target: str, name: str) -> bool:
    """Verbs that change what they are given: a page is drawn into the run, a plan is saved there."""
    within = {"flags-report": "run", "flags-plan": "run", "flags-apply": "run", "flags-study": "study"}.get(target)
    return within is not None and (name == within or name.startswith(f"{within}/"))


class Memory:
    """The most that a piece of work takes beyond what there was before; of its child processes, too.

    Linux forgets the old peak of a process when it is told to, so that every mutation is measured by itself; elsewhere
    the peak can only grow.
    """

    def __init__(self) -> None:
        self._start, self._children = 0, self._of_children()

    def begin(self) -> None:
        """Measure from here on."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._start, self._children = _status("VmRSS"), self._of_children()

    def end(self) -> int:
        """Bytes that were taken since :meth:`begin`, at the most."""
        grown = _status("VmHWM") - self._start
        children = self._of_children()
        return max(grown, children if children > self._children else 0)

    @staticmethod
    def _of_children() -> int:
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _status(field: str) -> int:
    """A number of this process that the kernel tells, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
