"""The demo of selection: all methods see the same digits, and it ends in a page and the next command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewer.core.errors import FewerError
from fewer.data.assets import package_folder
from fewer.selection import demo as module
from fewer.selection.methods import METHODS

pytestmark = pytest.mark.skipif(package_folder("sklearn") is None, reason="the digits come with scikit-learn")


def test_its_rows_are_methods() -> None:
    assert {"random", "saal", next(iter(METHODS))} <= {*module.METHODS} <= {*METHODS}
    assert module.SHOWN in module.BUDGETS


def test_it_ends_in_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGETS", (module.SHOWN,))
    done, again = (module.demo(tmp_path / "out", draws=2, seed=3) for _ in range(2))
    assert done.accuracy == again.accuracy and set(done.accuracy) == {*module.METHODS}
    assert all(0.2 < value < 0.95 for value in done.accuracy.values())
    page = done.page.read_text("utf-8")
    assert page.count("data:image/png") >= len(module.METHODS) and "mixes up the rows" in page
    assert f"see {done.page}" in done.lines() and "fewer select" in done.lines()[-1]
    kept = json.loads((tmp_path / "out" / "demo.json").read_text("utf-8"))
    assert {len(values) for values in kept["data"].values()} == {2}
    assert json.dumps(done.to_dict())


def test_a_choice_of_one_kind_is_judged_all_the_same() -> None:
    import numpy as np

    features, labels = np.zeros((4, 64), np.float32), np.array([7, 7, 7, 1])
    judges = np.zeros((4, 1, 8, 8), np.float32), np.array([7, 7, 1, 2])
    assert module._right(features, labels, np.array([0, 1]), judges, 0) == 0.5


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FewerError):
        module.demo(tmp_path / "file" / "out", draws=1)
