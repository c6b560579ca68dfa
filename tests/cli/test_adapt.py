"""Adapt on the command line: what it would do, and mistakes before anything is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tasks.segment.simulated import write_folder

pytest.importorskip("monai", reason="needs the [medical] extra")


def test_a_dry_run_says_who_trains(fewer, tmp_path) -> None:
    write_folder(tmp_path / "source", 6, (32, 32))
    shutil.copytree(tmp_path / "source" / "images", tmp_path / "target")
    told = fewer("adapt", "source", "target", "--out=run", "--dry-run", "--without=curves")
    assert told.code == 0, told.err
    assert "method ours, without curves" in told.out and "6 target scans without masks" in told.out
    assert not Path("run").exists()


def test_mistakes(fewer, tmp_path) -> None:
    write_folder(tmp_path / "source", 4, (32, 32))
    assert "nowhere" in fewer("adapt", "source", "nowhere", "--out=run").err
    assert "did you mean 'ms-mt'" in fewer("adapt", "source", "source", "--method=msmt", "--out=run").err
