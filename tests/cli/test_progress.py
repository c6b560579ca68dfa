"""Progress on the error stream: bars on a terminal, few plain lines in a log, and never anything on the output."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fewer.cli.progress import PlainProgress, RichProgress
from fewer.core.progress import SILENT, Course, Progress


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_all_of_them_are_progress() -> None:
    for progress in (SILENT, PlainProgress(), RichProgress()):
        assert isinstance(progress, Progress)


def test_a_short_stage_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainProgress(Clock()).stage("sense", 3) as stage:
        stage.advance(3)
    assert capsys.readouterr() == ("", "")


def test_a_long_stage_says_a_line_every_ten_seconds_with_an_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with PlainProgress(clock).stage("sense", 60) as stage:
        for second in range(1, 31):
            clock.now = second
            stage.advance(note="blocks.0")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "sense: 10 of 60, about 50.0 s left",
        "sense: 20 of 60, about 40.0 s left",
        "sense: 30 of 60, about 30.0 s left",
        "sense: done in 30.0 s",
    ]


def test_a_stage_that_fails_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="broken"), PlainProgress(clock).stage("sense"):
        clock.now = 100
        raise ValueError("broken")
    assert "done" not in capsys.readouterr().err


def _terminal(width: int) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=width, legacy_windows=False), file


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_bar_fits_on_one_line(width: int) -> None:
    import re

    console, file = _terminal(width)
    with RichProgress(console).stage("sense", 72) as stage:
        stage.advance(36, note="blocks.11.attention.output.projection")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    lines = [line for part in plain.split("\n") for line in part.split("\r")]
    assert max(map(len, lines)) <= width
    assert "72/72" in plain
    assert "took" in plain


def test_a_failed_bar_is_wiped_and_the_next_run_begins_anew() -> None:
    console, file = _terminal(80)
    progress = RichProgress(console)
    with pytest.raises(KeyboardInterrupt), progress.stage("sense", 3):
        raise KeyboardInterrupt
    file.truncate(0)
    with progress.stage("apply", 2) as stage:
        stage.advance(2)
    assert "sense" not in file.getvalue()
    assert "apply" in file.getvalue()


def test_a_note_with_brackets_is_shown_as_it_is() -> None:
    """A layer may be called so; it was read as an order to change the colour, and a wrong one."""
    console, file = _terminal(120)
    progress = RichProgress(console)
    with progress.stage("sense", 2) as stage:
        stage.advance(note="head[/]")
        progress._bars.refresh()
    assert "head[/]" in file.getvalue()


def test_stages_inside_stages() -> None:
    console, file = _terminal(80)
    progress = RichProgress(console)
    with progress.stage("outer"), progress.stage("inner", 1) as stage:
        stage.advance()
    assert "outer" in file.getvalue()
    assert "inner" in file.getvalue()


COURSE = {"sense": 30.0, "apply": 60.0, "report": 10.0}


def test_a_known_course_says_which_stage_it_is_and_how_long_all_of_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = PlainProgress(clock, Course(COURSE, clock))
    with progress.stage("sense", 3) as stage:
        clock.now = 20.0  # twice as slow as usual
        stage.advance()
        clock.now = 60.0
        stage.advance(2)
    with progress.stage("apply", 2) as stage, progress.stage("inner", 1) as inner:
        inner.advance()
        clock.now = 120.0
        stage.advance()
    assert capsys.readouterr().err.splitlines() == [
        "stage 1 of 3, sense: 1 of 3, about 2 min 15 s left in all",
        "stage 1 of 3, sense: 3 of 3, about 2 min 2 s left in all",
        "stage 1 of 3, sense: done in 1 min",
        "stage 2 of 3, apply: 1 of 2, about 1 min 14 s left in all",
        "inner: done in 1 min",
        "stage 2 of 3, apply: done in 1 min",
    ]


@pytest.mark.parametrize("pace", [0.2, 1.0, 5.0])
def test_the_estimate_of_all_is_never_wrong_by_five_times_once_a_stage_is_over(pace: float) -> None:
    clock = Clock()
    course = Course(COURSE, clock)
    for name, usual in COURSE.items():
        course.begin(name)
        for tenth in range(1, 11):
            clock.now += pace * usual / 10
            course.part(tenth / 10)
            truth = pace * (sum(COURSE.values()) - course.done * sum(COURSE.values()))
            if course.done > 0.3 and truth > 1:
                assert truth / 5 < course.left() < truth * 5


def test_the_line_of_all_stages_does_not_stay_among_the_finished_ones() -> None:
    import re

    console, file = _terminal(100)
    progress = RichProgress(console, Course(COURSE))
    for name in COURSE:
        with progress.stage(name, 2) as stage:
            stage.advance(2)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert "stage 1 of 3" in plain and "stage 3 of 3" in plain and "left in all" in plain
    assert "stage" not in plain.rstrip().splitlines()[-1]
