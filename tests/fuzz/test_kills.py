"""Whole verbs are killed before some of their file operations; ``tests/fuzz/kills.py`` does it before every one."""

from __future__ import annotations

import pytest

from tests.fuzz.kills import VERBS, check, kill_points

QUICK = (
    "compress", "compress-overwrite", "apply", "apply-overwrite", "select", "select-continue", "train-disc",
    "export-huggingface-overwrite", "private-compile-overwrite", "private-keys", "study-new", "tune-overwrite",
)  # fmt: skip
"""Those of a second or two; the others are killed by hand."""


@pytest.mark.parametrize("name", QUICK)
def test_going_on_after_a_kill_gives_what_never_stopping_gives(tmp_path, name):
    if name.startswith("tune"):
        pytest.importorskip("transformers", reason="a language model needs transformers (pip install fewer[tune])")
        pytest.importorskip("peft", reason="adapters need peft (pip install fewer[tune])")
    verb, base = VERBS[name], tmp_path / "base"
    base.mkdir()
    verb.prepare(base)
    points = kill_points(verb, base, tmp_path / "place")
    # in the midst of the work, and while its files are put in place
    for at in (points.count // 2, points.count - 3):
        assert check(verb, base, tmp_path / "place", at, points) == ""
