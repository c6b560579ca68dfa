"""Repair: a copy with what is safe to mend, the original untouched, and everything that was done written down."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import open_data
from fewer.tasks.segment.doctor import checkup
from fewer.tasks.segment.repair import repair


def test_duplicates_and_broken_files_are_left_out(disc_data, tmp_path) -> None:
    place = tmp_path / "d"
    shutil.copytree(disc_data, place)
    for part in ("images", "masks"):
        shutil.copy(place / part / "case0.png", place / part / "twin.png")
    (place / "images" / "case5.png").write_bytes(b"broken")
    before = {path: path.read_bytes() for path in place.rglob("*.png")}
    done = repair(checkup(open_data(place)), tmp_path / "fixed")
    assert done.kept == 7 and len(done.left_out) == 2
    assert {path: path.read_bytes() for path in place.rglob("*.png")} == before
    told = json.loads((tmp_path / "fixed" / "changes.json").read_text())
    assert "case5" in json.dumps(told) and any("left out" in line for line in done.lines())
    names = {case.name for case in open_data(tmp_path / "fixed").cases}
    assert "case5" not in names and len(names) == 7


def test_labels_are_numbered_without_gaps(disc_data, tmp_path) -> None:
    done = repair(checkup(open_data(disc_data)), tmp_path / "fixed")
    data = open_data(done.folder)
    assert list(data.classes.values()) == [0, 1]
    assert {*np.unique(np.asarray(Image.open(data.cases[0].mask)))} == {0, 1}


def test_an_existing_folder_is_not_written_into(disc_data, tmp_path) -> None:
    with pytest.raises(FewerError, match="exists already"):
        repair(checkup(open_data(disc_data)), tmp_path)
