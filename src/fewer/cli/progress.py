"""Progress on the error stream: bars with an estimate on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from fewer.cli.show import shorten
from fewer.cli.terminal import safe_console
from fewer.core.progress import SILENT, Course, Pace, Progress, Stage
from fewer.reports.numbers import duration

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["PlainProgress", "RichProgress", "show_progress", "terminal_progress"]

NAME = 18
"""Columns for the name of a stage."""
QUIET = 10.0
"""Seconds between plain lines; a stage that is shorter says nothing, so that logs stay short."""


_shown = True


def show_progress(shown: bool) -> None:
    """Whether the command that runs now tells how far it is; ``--quiet`` says no."""
    global _shown
    _shown = shown


def terminal_progress(course: Course | None = None) -> Progress:
    """Bars when a person watches the error stream, plain lines when a file or a CI log does, nothing when quiet.

    ``course`` knows the stages of the work beforehand; then all of it has a line and an estimate of its own.
    """
    if not _shown:
        return SILENT
    return RichProgress(course=course) if sys.stderr.isatty() else PlainProgress(course=course)


class RichProgress:
    """One line per stage: name, bar, count, time taken and an estimate of what is left.

    Finished stages stay on the screen as a record of where the time went; a stage that fails is wiped. Of work whose
    stages are known, a line under them says which one this is and how long all of it will take.
    """

    def __init__(self, console: Console | None = None, course: Course | None = None) -> None:
        self.console, self.course = console or safe_console(stderr=True), course
        self._bars: Any = None
        self._open = 0

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Stage]:
        """See :class:`fewer.core.progress.Progress`."""
        if self._bars is None:
            self._bars = _bars(self.console)
            self._bars.start()
        self._open += 1
        task = self._bars.add_task(shorten(name, NAME), total=total, note="")
        whole = None
        if self.course is not None and self._open == 1:
            self.course.begin(name)
            whole = _RichWhole(self._bars, self.course, total)
        try:
            yield _RichStage(self._bars, task, whole)
            finished = self._bars.tasks[self._bars.task_ids.index(task)]
            self._bars.update(task, total=finished.total or 1, completed=finished.total or 1, note="")
        except BaseException:
            self._bars.remove_task(task)
            raise
        finally:
            self._open -= 1
            if whole is not None:
                whole.close()
            if not self._open:
                self._bars.stop()
                self._bars = None


class _RichStage:
    def __init__(self, bars: Any, task: Any, whole: _RichWhole | None) -> None:
        self.bars, self.task, self.whole = bars, task, whole

    def advance(self, n: float = 1, note: str = "") -> None:
        self.bars.update(self.task, advance=n, note=shorten(note, 28))
        if self.whole is not None:
            self.whole.advance(n)


class _RichWhole:
    """The line of all stages together; it goes with each stage, so that it never stands among the finished ones."""

    def __init__(self, bars: Any, course: Course, total: float | None) -> None:
        self.bars, self.course, self.total, self.steps = bars, course, total, 0.0
        self.task = bars.add_task(course.where(), total=100, note="", course=course)
        self.advance(0)

    def advance(self, n: float) -> None:
        self.steps += n
        self.course.part(self.steps / self.total if self.total else 0.0)
        self.bars.update(self.task, completed=round(100 * self.course.done))

    def close(self) -> None:
        self.bars.remove_task(self.task)


def _bars(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            course = task.fields.get("course")
            if course is not None:
                return Text(f"about {duration(course.left())} left in all", style="bold")
            if task.finished:
                return Text(f"took {duration(task.finished_time or 0)}", style="dim")
            if task.time_remaining is None:
                return Text(f"{duration(task.elapsed or 0)} so far", style="dim")
            return Text(f"about {duration(task.time_remaining)} left")

    columns: list[Any] = [
        TextColumn(f"{{task.description:<{NAME}}}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        Left(),
    ]
    if console.width >= 100:
        columns.append(TextColumn("{task.fields[note]}", style="dim", markup=False))
    return Progress(*columns, console=console, refresh_per_second=4)


class PlainProgress:
    """Plain lines for logs: at most one every ten seconds, and one at the end of a stage that took that long."""

    def __init__(self, clock: Any = time.monotonic, course: Course | None = None) -> None:
        self.clock, self.course = clock, course
        self._open = 0

    def stage(self, name: str, total: float | None = None) -> AbstractContextManager[Stage]:
        """See :class:`fewer.core.progress.Progress`."""
        return self._stage(name, total)

    @contextmanager
    def _stage(self, name: str, total: float | None) -> Iterator[Stage]:
        outermost = self.course is not None and self._open == 0
        if outermost and self.course is not None:
            self.course.begin(name)
        stage = _PlainStage(name, total, self.clock, self.course if outermost else None)
        self._open += 1
        try:
            yield stage
        finally:
            self._open -= 1
        took = self.clock() - stage.started
        if took >= QUIET:
            print(f"{stage.where}{name}: done in {duration(took)}", file=sys.stderr, flush=True)


class _PlainStage:
    def __init__(self, name: str, total: float | None, clock: Any, course: Course | None = None) -> None:
        self.name, self.total, self.clock, self.done = name, total, clock, 0.0
        self.course, self.where = course, f"{course.where()}, " if course is not None else ""
        self.started = self.told = clock()
        self.pace = Pace()

    def advance(self, n: float = 1, note: str = "") -> None:
        self.done += n
        now = self.clock()
        left = self.pace.left(self.done, self.total, now)
        if self.course is not None:
            self.course.part(self.done / self.total if self.total else 0.0)
        if now - self.told < QUIET:
            return
        self.told = now
        line = f"{self.where}{self.name}: {self.done:g}" + (f" of {self.total:g}" if self.total else "")
        if self.course is not None:
            line += f", about {duration(self.course.left())} left in all"
        else:
            line += f", about {duration(left)} left" if left is not None else ""
        print(line, file=sys.stderr, flush=True)
