"""Private on the command line: who needs what."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compile", "net.py:net"], "--out FOLDER"),
        (["compile", "net.py:net", "--out=c"], "--images FOLDER"),
        (["keys", "c/public.json"], "--out FOLDER"),
        (["query", "keys"], "which images?"),
    ],
)
def test_what_is_missing_is_told(fewer, words, told: str) -> None:
    found = fewer("private", *words)
    assert found.code == 2 and told in found.err


def test_an_action_that_is_none(fewer) -> None:
    assert fewer("private", "compil", "net.py:net").code == 2
