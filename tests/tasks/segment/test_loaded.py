"""What a trained run knows of its own training: preparation, and the cases that it never learnt from."""

from __future__ import annotations

import json
import shutil

import pytest

from fewer.core.errors import FewerError
from fewer.models.spec import load_model
from fewer.tasks.segment.dataset import open_data
from fewer.tasks.segment.loaded import preparation_of, unseen_cases


def test_of_its_own_data_only_what_judged_is_unseen(disc_data, disc_run, tmp_path) -> None:
    loaded = load_model(str(disc_run))
    split = json.loads((disc_run / "recipe.json").read_text())["meta"]["segment"]["split"]
    assert sorted(c.name for c in unseen_cases(loaded, open_data(disc_data))) == sorted(split["val"])
    shutil.copytree(disc_data, tmp_path / "other")
    assert len(unseen_cases(loaded, open_data(tmp_path / "other"))) == 8


def test_the_preparation_is_that_of_the_training(disc_run) -> None:
    found = preparation_of(load_model(str(disc_run)))
    assert found.classes == ("background", "foreground") and found.values == (0, 255) and found.channels == 1


def test_another_model_was_not_trained_for_it() -> None:
    with pytest.raises(FewerError, match="not trained for segmentation"):
        preparation_of(load_model("fewer/mnist-cnn"))
