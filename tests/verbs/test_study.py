"""A study in Python: made, looked at, exported; texts become conversations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fewer
from fewer.core.errors import FewerError
from fewer.study.settings import StudySettings


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(4):
        pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path / "photos"


def test_from_a_new_study_to_its_export(photos: Path, tmp_path: Path) -> None:
    made = fewer.study_new(tmp_path / "s", photos, settings=StudySettings(raters=5), raters=3)
    assert (made.images, made.raters) == (4, 3)
    found = fewer.study_status(tmp_path / "s", out=tmp_path / "page")
    assert found.lines() and (tmp_path / "page" / "study.html").is_file()
    assert fewer.study_export(tmp_path / "s").lines() and (tmp_path / "s" / "export").is_dir()
    with pytest.raises(FewerError, match="no text yet"):
        fewer.study_convert(tmp_path / "s")
    with pytest.raises(FewerError):
        fewer.study_delete(tmp_path / "s", "nobody")


def test_a_misspelt_setting_has_its_neighbour(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FewerError, match="did you mean 'raters'"):
        fewer.study_new(tmp_path / "s", photos, rater=3)
    assert not (tmp_path / "s").exists()


def test_texts_become_conversations(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "rater": "r", "description": "The cat is very blurry.", "conclusion": "It is poor."}]
    place = tmp_path / "pathways.json"
    place.write_text(json.dumps(rows), "utf-8")
    done = fewer.study_convert(place)
    assert done.path == tmp_path / "records.json" and done.to_dict()["records"] == str(done.path)
    with pytest.raises(FewerError, match="exists already"):
        fewer.study_convert(place)
