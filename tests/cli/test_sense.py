"""Sense: curves without a plan, kept unless asked, gone on with where they were interrupted."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import QUICK


def test_curves_are_kept_and_the_next_step_is_named(fewer) -> None:
    words = ("sense", "net.py:net", "--images=photos", "--out=run", *QUICK)
    assert fewer(*words).code == 0
    names = {path.name for path in Path("run").iterdir()}
    assert "curves.npz" in names and not {"plan.json", "model.safetensors"} & names
    assert "next: fewer plan run" in fewer("info", "run").out
    again = fewer(*words)
    assert again.code == 2 and "--overwrite" in again.err
    before = Path("run/curves.npz").read_bytes()
    assert fewer(*words, "--overwrite").code == 0
    assert Path("run/curves.npz").read_bytes() == before  # the same settings and the same seed
