"""``fewer select`` from the shell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")

GOOD = ["--features=net.py:net", "--backend=serial", "--out=queue"]


def test_a_queue_and_a_further_round(fewer):
    told = fewer("select", "photos", "--budget=labels=2", *GOOD)
    assert told.code == 0, told
    assert "2 of 6 images to label, chosen by coverage" in told.out and "wrote queue/gallery.html" in told.out
    again = fewer("select", "--continue", "--out=queue", "--budget=labels=100%", "--json", "--backend=serial")
    assert again.code == 0 and len(json.loads(again.out)["chosen"]) == 4


def test_a_dry_run_writes_nothing(fewer):
    told = fewer("select", "photos", "--budget=labels=50%", "--dry-run", "--json")
    assert json.loads(told.out) | {"images": 6, "choose": 3} == json.loads(told.out) and not Path("queue").exists()


@pytest.mark.parametrize(("flag", "says"), [("--method=kcentre", "'kcenter'"), ("--to=cocco", "'coco'")])
def test_a_dry_run_finds_mistakes_too(fewer, flag, says):
    told = fewer("select", "photos", "--budget=labels=2", "--dry-run", flag)
    assert told.code == 2 and f"did you mean {says}" in told.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["photos"], "which budget?"),
        (["--budget=labels=2"], "which pool?"),
        (["photos", "--budget=labels=7"], "at most labels=6"),
        (["photos", "--budget=labels=2", "--method=bald"], "cold start"),
        (["fotos", "--budget=labels=2"], "did you mean 'photos'"),
        (["photos", "--budget=labels=2", "--device=cuda:0"], "on the CPU"),
    ],
)
def test_mistakes_are_one_sentence(fewer, words, says):
    told = fewer("select", *words, *GOOD)
    assert told.code == 2 and told.err.count("\n") == 1 and says in told.err and told.out == ""
    assert not Path("queue").exists()


def test_all_methods_are_listed(fewer):
    from fewer.select.methods import METHODS

    assert json.loads(fewer("list", "methods", "--json").out).keys() == {*METHODS, "skactiveml/NAME"}


def test_a_pool_of_broken_images(fewer):
    shutil.rmtree("photos")
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(b"no")
    told = fewer("select", "photos", "--budget=labels=1", *GOOD)
    assert told.code == 2 and "none of the 1 images can be read; the first: a.png" in told.err
