"""Exit codes: what happened is a number for scripts and one sentence for people."""

from __future__ import annotations

import errno

import pytest

from fewer.core.errors import FewerError


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "nothing is lost"),
        (FewerError("the input is odd"), 2, "error: the input is odd"),
        (MemoryError(), 2, "out of memory"),
        (OSError(errno.ENOSPC, "full", "x"), 2, "no space left"),
        (PermissionError(errno.EACCES, "denied", "secret"), 2, "secret"),
        (ValueError("two\nlines"), 1, "internal error: ValueError: two lines"),
    ],
    ids=["interrupted", "input", "memory", "disk", "permission", "defect"],
)
def test_an_error_is_a_code_and_one_line(fewer, monkeypatch, error, code: int, words: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setitem(__import__("fewer.cli.list", fromlist=["LISTS"]).LISTS, "models", fail)
    told = fewer("list", "models")
    assert told.code == code and words in told.err and told.err.count("\n") == 1


def test_what_a_library_warns_of_is_not_shown(fewer, monkeypatch) -> None:
    import warnings

    def warn() -> dict[str, str]:
        warnings.warn("an old function", DeprecationWarning, stacklevel=1)
        warnings.warn("fewer: look at this", UserWarning, stacklevel=1)
        return {"a": "b"}

    monkeypatch.setitem(__import__("fewer.cli.list", fromlist=["LISTS"]).LISTS, "models", warn)
    told = fewer("list", "models")
    assert "old function" not in told.err and "fewer: look at this" in told.err


def test_a_null_character_is_told(fewer) -> None:
    assert "null character" in fewer("info", "a\0b").err
