"""The demo of training in few bits: every row runs on real digits, and it ends in a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewer.data.assets import package_folder
from fewer.tasks.classify import lowbit_demo as module
from fewer.tasks.classify.settings import TrainSettings


@pytest.mark.parametrize("name", module.ROWS)
def test_every_row_is_a_setting_that_is_known(name: str) -> None:
    assert TrainSettings(**module.ROWS[name]).gradients in ("nearest", TrainSettings().gradients)


def test_it_ends_in_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if package_folder("sklearn") is None:
        pytest.skip("the digits come with scikit-learn")
    monkeypatch.setattr(module, "ROWS", {name: module.ROWS[name] for name in ("fp32", "w4a4g4")})
    for _ in range(2):  # what an earlier one left is replaced
        done = module.demo(tmp_path / "out", steps=2)
    page = done.page.read_text("utf-8")
    assert "simulated in floating point" in page and set(done.accuracy) == {"fp32", "w4a4g4"}
    assert done.lines()[-1] == f"see {done.page}" and json.dumps(done.to_dict())
    assert (tmp_path / "out" / "w4a4g4" / "report.html").is_file() and (tmp_path / "out" / "demo.json").is_file()
