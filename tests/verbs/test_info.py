"""What a run holds, in each of its states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.engine.settings import Settings

QUICK = Settings(calibration=8, sensing=4, heldout=4, additivity=0, baselines=(), backend="serial")


def test_a_run_that_was_sensed_and_one_that_is_finished(tmp_path: Path) -> None:
    net, images = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(16, 8)
    fewer.sense(net, images, out=tmp_path / "sensed", settings=QUICK)
    found = fewer.info(tmp_path / "sensed")
    assert found.report is None and "sensed; next: fewer plan" in repr(found) and "curves.npz" in found.files
    run = fewer.compress(net, images, "weights=50%", out=tmp_path / "run", settings=QUICK)
    found = fewer.info(tmp_path / "run")
    assert found.report is not None and found.plan is not None and found.page is None
    assert found.report.verdict.distortion == run.report.verdict.distortion
    assert "budget met" in repr(found) and "model.safetensors" in found._repr_html_()


def test_a_model_is_no_run_and_told_so() -> None:
    with pytest.raises(FewerError, match=r"its layers: fewer.match_table\('fewer/mobilenet-v2'\)"):
        fewer.info("fewer/mobilenet-v2")


def test_the_page_of_a_training(tmp_path: Path) -> None:
    from tests.tasks.classify.shapes import write_folders

    write_folders(tmp_path / "shapes", each=6)
    few = {"network": "resnet20", "input_size": 16, "steps": 2, "batch": 8, "augment": "none"}
    fewer.train(tmp_path / "shapes", task="classify", out=tmp_path / "run", **few)
    found = fewer.info(tmp_path / "run")
    assert found.page is not None and found.report is None and found.page.title in repr(found)
    assert "history.csv" in found.files


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FewerError, match="not a run"):
        fewer.info(tmp_path)
