"""Export on the command line: a folder for the Hub from one run, and what a dry run says."""

from __future__ import annotations

from pathlib import Path

import fewer as library


def test_a_folder_with_a_card_that_loads_back(fewer, compress) -> None:
    compress("net.py:net", "--budget=weights=50%")
    told = fewer("export", "run", "--to=huggingface", "--out=hub", "--trust=net.py")
    assert told.code == 0, told.err
    assert "licence" in told.out and Path("hub/README.md").read_text().startswith("---\nlibrary_name: fewer")
    library.load("hub", trust=True)
    again = fewer("export", "run", "--to=huggingface", "--out=hub", "--trust=net.py")
    assert again.code == 2 and "--overwrite" in again.err


def test_a_dry_run_and_a_wrong_format(fewer, compress) -> None:
    compress("net.py:net", "--budget=weights=50%")
    assert "would write" in fewer("export", "run", "--dry-run").out and not Path("run/model.onnx").exists()
    assert "did you mean 'onnx'" in fewer("export", "run", "--to=onxx").err
