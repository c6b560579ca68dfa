"""How a verb tells what it is doing, without knowing who listens: a terminal, a notebook or nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Protocol, TextIO, runtime_checkable

__all__ = [
    "SILENT",
    "Course",
    "LineProgress",
    "Pace",
    "Progress",
    "Silent",
    "Stage",
    "Under",
    "in_shares",
    "timed",
    "usual_progress",
]


class Stage(Protocol):
    """One stretch of work that is under way."""

    def advance(self, n: float = 1, note: str = "") -> None:
        """Say that ``n`` more of the stage's total are done; ``note`` names the latest, for example a layer."""
        ...


@runtime_checkable
class Progress(Protocol):
    """Someone who is told about stages of work. Any object with this method will do.

    Examples
    --------
    >>> class Printer:
    ...     @contextmanager
    ...     def stage(self, name, total=None):
    ...         print(name, total)
    ...         yield Silent()
    >>> with Printer().stage("sense", 72) as stage:
    ...     stage.advance(note="blocks.0.attn.qkv")
    sense 72
    """

    def stage(self, name: str, total: float | None = None) -> AbstractContextManager[Stage]:
        """Begin a stage.

        Parameters
        ----------
        name
            One or two words, for example ``sense``.
        total
            How much there is to do, in any unit; None when that is not known.

        Returns
        -------
        context manager
            Gives a :class:`Stage`. Leaving it ends the stage, also when an exception passes through.
        """
        ...


class Silent:
    """The default: nobody is told anything. It is its own stage.

    Examples
    --------
    >>> with SILENT.stage("plan", 1) as stage:
    ...     stage.advance()
    """

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Silent]:
        """See :meth:`Progress.stage`."""
        yield self

    def advance(self, n: float = 1, note: str = "") -> None:
        """See :meth:`Stage.advance`."""


SILENT = Silent()


class LineProgress:
    """One line that is written over again, for a terminal or a notebook in which Python is used.

    Parameters
    ----------
    stream
        By default the error stream.
    clock
        Seconds.
    """

    EVERY = 0.2
    """Seconds between two looks of the line."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = perf_counter) -> None:
        self._stream, self._clock = stream or sys.stderr, clock
        self._wide = 0

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Stage]:
        """See :meth:`Progress.stage`."""
        try:
            yield _Line(self, name, total, self._clock())
        finally:
            self.write("")

    def write(self, line: str) -> None:
        """Put a line in the place of the last one."""
        self._stream.write("\r" + line.ljust(self._wide) + ("" if line else "\r"))
        self._stream.flush()
        self._wide = len(line)


class Under:
    """A part of longer work, whose stages have the name of the part before their own.

    Examples
    --------
    >>> class Printer:
    ...     @contextmanager
    ...     def stage(self, name, total=None):
    ...         print(name)
    ...         yield SILENT
    >>> with Under(Printer(), "fast").stage("sense", 72):
    ...     pass
    fast sense
    """

    def __init__(self, whole: Progress, name: str) -> None:
        self.whole, self.name = whole, name

    def stage(self, name: str, total: float | None = None) -> AbstractContextManager[Stage]:
        """See :meth:`Progress.stage`."""
        return self.whole.stage(f"{self.name} {name}", total)


class Pace:
    """How long the rest of a stage takes. The first step is left out: it holds set-up that the others do not have.

    Examples
    --------
    >>> pace = Pace()
    >>> pace.left(1, 10, now=60.0), pace.left(3, 10, now=64.0)
    (None, 14.0)
    """

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def left(self, done: float, total: float | None, now: float) -> float | None:
        """Seconds that are left after ``done`` of ``total``; None while nothing is known of it."""
        if self._first is None:
            self._first = (done, now)
        before, then = self._first
        if total is None or done <= before:
            return None
        return (now - then) / (done - before) * max(total - done, 0)


class Course:
    """Where work stands whose stages are known beforehand: the how many of how many, and how long all of it takes.

    Parameters
    ----------
    usual
        Seconds that each stage took on some machine, by name and in order. They serve as shares: how quick this
        machine is, the stages that are over say, and for a start it is taken to be as quick. A stage that is passed
        over counts no more.
    clock
        Seconds.

    Examples
    --------
    >>> now = [0.0]
    >>> course = Course({"sense": 60.0, "apply": 30.0}, lambda: now[0])
    >>> course.begin("sense")
    >>> now[0] = 120.0  # this machine takes twice as long
    >>> course.part(1.0)
    >>> course.where(), round(course.left())
    ('stage 1 of 2', 56)
    """

    TRUST = 10.0
    """So many seconds of work count as done at the usual pace, before this machine has shown its own."""

    def __init__(self, usual: Mapping[str, float], clock: Callable[[], float] = perf_counter) -> None:
        self.usual, self._clock = dict(usual), clock
        self._began = clock()
        self._over: list[str] = []
        self._now, self._part = "", 0.0

    def begin(self, name: str) -> None:
        """A stage begins; the one before it is over, and those that should have come before it will not come."""
        if self._now:
            self._over.append(self._now)
        if name in self.usual:
            names = list(self.usual)
            for earlier in names[: names.index(name)]:
                if earlier not in self._over:
                    del self.usual[earlier]
        self._now, self._part = name, 0.0

    def part(self, share: float) -> None:
        """So much of the present stage is done, 0 to 1."""
        self._part = min(max(share, 0.0), 1.0)

    @property
    def done(self) -> float:
        """Share of all work that is done, by the usual times."""
        return self._spent() / max(sum(self.usual.values()), 1e-9)

    def _spent(self) -> float:
        return sum(self.usual.get(name, 0.0) for name in self._over) + self._part * self.usual.get(self._now, 0.0)

    def where(self) -> str:
        """Such as ``stage 3 of 12``."""
        at = len(self._over) + 1
        return f"stage {at} of {max(at, len(self.usual))}"

    def left(self) -> float:
        """Seconds until all is done."""
        spent = self._spent()
        pace = (self._clock() - self._began + self.TRUST) / (spent + self.TRUST)
        return pace * max(sum(self.usual.values()) - spent, 0.0)


class _Line:
    """A stage of :class:`LineProgress`."""

    def __init__(self, owner: LineProgress, name: str, total: float | None, began: float) -> None:
        self.owner, self.name, self.total = owner, name, total
        self.done, self.told, self.pace = 0.0, began, Pace()

    def advance(self, n: float = 1, note: str = "") -> None:
        """See :meth:`Stage.advance`."""
        self.done += n
        now = self.owner._clock()
        left = self.pace.left(self.done, self.total, now)
        if now - self.told < LineProgress.EVERY:
            return
        self.told = now
        line = f"{self.name}: {self.done:g}" + (f" of {self.total:g}" if self.total else "")
        self.owner.write(line + (f", about {left:.0f} s left" if left is not None else ""))


def usual_progress() -> Progress:
    """What a verb shows in Python unless it is told otherwise: a line where a person is looking, else nothing.

    A person looks at a terminal and at a notebook, and not at a log. ``progress=SILENT`` shows nothing anywhere.

    Examples
    --------
    >>> usual_progress() is SILENT  # here the error stream is no terminal
    True
    """
    looking = "ipykernel" in sys.modules or bool(getattr(sys.stderr, "isatty", lambda: False)())
    return LineProgress() if looking else SILENT


@contextmanager
def in_shares(progress: Progress | Callable[[str, float], None], name: str) -> Iterator[Callable[[str, float], None]]:
    """A stage of work that knows which share of it is done: the function to call with a text and that share.

    A function in place of a progress is called itself.

    Examples
    --------
    >>> class Printer:
    ...     @contextmanager
    ...     def stage(self, name, total=None):
    ...         print(name, total)
    ...         yield self
    ...     def advance(self, n=1, note=""):
    ...         print(n, note)
    >>> with in_shares(Printer(), "bench") as tell:
    ...     tell("torch", 0.25)
    ...     tell("OpenVINO", 1.0)
    bench 100
    25 torch
    75 OpenVINO
    """
    if not hasattr(progress, "stage"):
        assert callable(progress)
        yield progress
        return
    done = 0

    with progress.stage(name, 100) as stage:  # type: ignore[union-attr]

        def tell(text: str, share: float) -> None:
            nonlocal done
            now = int(100 * share)
            stage.advance(now - done, text)
            done = now

        yield tell


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds spent inside to an entry of a dictionary.

    Examples
    --------
    >>> spent = {}
    >>> with timed(spent, "sense"):
    ...     pass
    >>> list(spent)
    ['sense']
    """
    began = perf_counter()
    try:
        yield
    finally:
        timings[name] = timings.get(name, 0.0) + perf_counter() - began
