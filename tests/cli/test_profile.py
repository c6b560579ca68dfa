"""Profile on the command line: nothing is timed where nothing could be kept."""

from __future__ import annotations

from pathlib import Path


def test_a_file_that_is_there_stays(fewer) -> None:
    Path("laptop.json").write_text("mine")
    told = fewer("profile", "net.py:net", "--out=laptop.json")
    assert told.code == 2 and "--overwrite" in told.err and Path("laptop.json").read_text() == "mine"


def test_a_dry_run_says_what_would_be_timed(fewer) -> None:
    told = fewer("profile", "net.py:net", "--deploy-batch=4", "--pattern=block:16x4", "--dry-run")
    assert told.code == 0 and "batch 4" in told.out and "block:16x4" in told.out
