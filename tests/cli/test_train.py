"""Train, eval and predict on the command line: a tiny classifier from folders of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tasks.classify.shapes import write_folders

FEW = ("--network=resnet20", "--input-size=16", "--steps=4", "--every=2", "--batch=8", "--augment=none")


@pytest.fixture(autouse=True)
def _photos(tmp_path) -> None:
    write_folders(tmp_path / "shapes", each=6)


def test_a_dry_run_says_what_would_be_trained(fewer) -> None:
    told = fewer("train", "shapes", "--task=classify", "--out=trained", "--dry-run", *FEW)
    assert told.code == 0, told.err
    assert "classes" in told.out and not Path("trained").exists()


def test_from_training_to_predictions(fewer) -> None:
    told = fewer("train", "shapes", "--task=classify", "--out=trained", *FEW)
    assert told.code == 0, told.err
    assert Path("trained/history.csv").read_text().splitlines()[0].startswith("step,loss")
    found = json.loads(fewer("eval", "trained", "shapes", "--part=all", "--json").out)
    assert found["images"] == 18 and 0 <= found["balanced_accuracy"] <= 1
    assert fewer("predict", "trained", "shapes", "--out=said", "--top=2").code == 0
    assert any(Path("said").iterdir())


def test_a_misspelt_task_and_a_bad_time(fewer) -> None:
    assert "did you mean 'classify'" in fewer("train", "shapes", "--task=clasify").err
    told = fewer("train", "shapes", "--task=classify", "--time=10", "--out=t")
    assert told.code == 2 and "no unit of measure" in told.err


def test_quiet_tells_no_plan(fewer) -> None:
    told = fewer("train", "shapes", "--task=classify", "--out=trained", "--quiet", *FEW)
    assert (told.code, told.err) == (0, "") and "report" in told.out


def test_logs_for_tensorboard(fewer) -> None:
    pytest.importorskip("tensorboard", reason="needs the [logs] extra")
    told = fewer("train", "shapes", "--task=classify", "--out=trained", "--tensorboard=logs", *FEW)
    assert told.code == 0, told.err
    assert next(path.name for path in Path("logs").iterdir()).startswith("events.out")
    Path("file").write_text("")
    told = fewer("train", "shapes", "--task=classify", "--out=other", "--tensorboard=file", *FEW)
    assert told.code == 2 and "file is a file" in told.err and not Path("other").exists()
