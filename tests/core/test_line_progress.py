"""The line that Python shows where a person is looking."""

from __future__ import annotations

import io
import sys

import pytest

from fewer.core.progress import SILENT, LineProgress, usual_progress


def test_one_line_is_written_over_again_and_wiped_at_the_end() -> None:
    stream, times = io.StringIO(), iter([0.0, 30.0, 30.05, 31.0])
    shown = LineProgress(stream, lambda: next(times))
    with shown.stage("sense", 4) as stage:
        stage.advance()
        stage.advance()  # too soon after the last one
        stage.advance()
    lines = stream.getvalue().split("\r")
    assert [line.strip() for line in lines if line.strip()] == [
        "sense: 1 of 4",
        "sense: 3 of 4, about 0 s left",
    ]
    assert not lines[-1] and not lines[-2].strip() and "\n" not in stream.getvalue()


def test_it_is_wiped_when_something_fails() -> None:
    stream, times = io.StringIO(), iter([0.0, 1.0])
    with pytest.raises(ZeroDivisionError), LineProgress(stream, lambda: next(times)).stage("plan") as stage:
        stage.advance()
        raise ZeroDivisionError
    assert stream.getvalue().endswith("\r")


def test_logs_stay_empty_and_terminals_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usual_progress() is SILENT
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(usual_progress(), LineProgress)
