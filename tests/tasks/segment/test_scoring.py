"""Scores of a folder of masks: perfect ones, missing ones, and those that belong to nothing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import open_data
from fewer.tasks.segment.preparation import Preparation
from fewer.tasks.segment.reading import class_indices
from fewer.tasks.segment.scoring import evaluate_folder, with_classes


def test_the_truth_scores_one_and_a_missing_mask_counts_as_missed(disc_data, tmp_path) -> None:
    shutil.copytree(disc_data / "masks", tmp_path / "m")
    data = open_data(disc_data)
    perfect = evaluate_folder(tmp_path / "m", data)
    assert perfect.overall.dice == 1 and perfect.overall.missed == 0 and perfect.overall.hd95 == 0
    (tmp_path / "m" / "case0.png").unlink()
    found = evaluate_folder(tmp_path / "m", data, distances=False)
    assert found.missing == ("case0",) and found.overall.missed == 1
    assert found.overall.dice == 1 and found.overall.dice_all == pytest.approx(7 / 8)


def test_an_empty_mask_is_one_that_missed(disc_data, tmp_path) -> None:
    shutil.copytree(disc_data / "masks", tmp_path / "m")
    shape = np.asarray(Image.open(tmp_path / "m" / "case1.png")).shape
    Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "m" / "case1.png")
    assert evaluate_folder(tmp_path / "m", open_data(disc_data)).overall.missed == 1


def test_masks_that_do_not_belong_are_told(disc_data, tmp_path) -> None:
    shutil.copytree(disc_data / "masks", tmp_path / "m")
    shutil.copy(tmp_path / "m" / "case1.png", tmp_path / "m" / "case11.png")
    with pytest.raises(FewerError, match="did you mean 'case1'"):
        evaluate_folder(tmp_path / "m", open_data(disc_data))


def test_classes_are_those_of_the_training_unless_others_are_declared(disc_data) -> None:
    data = open_data(disc_data)
    numbers = {"normalise": "zscore", "mean": (), "std": (), "low": (), "high": (), "spacing": None, "patch": (32, 32)}
    trained = Preparation(classes=("background", "disc"), values=(0, 255), channels=1, **numbers)
    assert with_classes(data, trained).classes == {"background": 0, "disc": 255}
    from dataclasses import replace

    with pytest.raises(FewerError, match="was trained on"):
        with_classes(replace(data, declared={"background": 0, "a": 1, "b": 2}), trained)


def test_the_same_names_of_other_numbers_are_read_by_the_names(disc_data) -> None:
    from dataclasses import replace

    data = open_data(disc_data)
    names = ("background", "organ", "lesion")
    trained = Preparation(names, (0, 1, 2), 1, "zscore", (), (), (), (), None, (32, 32))
    found = with_classes(replace(data, declared={"background": 0, "lesion": 1, "organ": 2}), trained)
    assert list(found.classes.items()) == [("background", 0), ("organ", 2), ("lesion", 1)]
    mask = np.array([[0, 1, 2]], np.uint8)
    assert class_indices(mask, found.classes, "m").tolist() == [[0, 2, 1]]  # lesion is the network's third class
    renamed = {"background": 0, "liver": 1, "tumour": 2}
    assert with_classes(replace(data, declared=renamed), trained).classes == renamed
    with pytest.raises(FewerError, match="was trained on"):  # one name of two has another number
        with_classes(replace(data, declared={"background": 0, "lesion": 1, "vessel": 2}), trained)
