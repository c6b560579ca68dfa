"""Study on the command line: actions with their neighbour, and what each of them needs."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sevre", "s"], "did you mean 'serve'"),
        (["new", "s"], "which photos?"),
        (["delete", "s"], ""),
        (["status", "nowhere"], "nowhere"),
    ],
)
def test_what_is_missing_is_told(fewer, words, told: str) -> None:
    found = fewer("study", *words)
    assert found.code == 2 and told in found.err and not Path("s").exists()


def test_a_dry_run_makes_nothing(fewer) -> None:
    assert "nothing is written" in fewer("study", "new", "s", "--images=photos", "--dry-run").out
    assert not Path("s").exists()
