"""Data sets: found as folders of images and masks, split once and for all, and told where they are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import Case, SegmentData, find_pictures, image_pool, mask_values, open_data
from fewer.tasks.segment.settings import TrainSettings
from fewer.tasks.segment.training import plan_training


def test_images_meet_their_masks_and_the_others_are_named(disc_data, tmp_path) -> None:
    shutil.copytree(disc_data, tmp_path / "d")
    (tmp_path / "d" / "masks" / "case3.png").unlink()
    data = open_data(tmp_path / "d")
    assert [case.name for case in data.cases] == [f"case{i}" for i in (0, 1, 2, 4, 5, 6, 7)]
    assert [case.name for case in data.unlabelled] == ["case3"] and data.classes == {"background": 0, "foreground": 255}
    with pytest.raises(FewerError, match="did you mean 'case2'"):
        data.case("case22")


def test_every_case_judges_in_one_fold(disc_data) -> None:
    data = open_data(disc_data)
    splits = [data.split(fold, 4, seed=3) for fold in range(4)]
    for split in splits:
        assert not set(split.train) & set(split.val) and len(split.train) + len(split.val) == 8
    assert sorted(name for split in splits for name in split.val) == sorted(case.name for case in data.cases)
    assert splits[1] == data.split(1, 4, seed=3) != data.split(1, 4, seed=4)


def test_values_of_masks(tmp_path) -> None:
    Image.fromarray(np.array([[0, 7], [255, 7]], np.uint8)).save(tmp_path / "m.png")
    assert mask_values(tmp_path / "m.png") == [0, 7, 255]


def test_a_pool_needs_no_masks_and_hidden_files_are_no_pictures(disc_data, tmp_path) -> None:
    shutil.copy(disc_data / "images" / "case0.png", tmp_path / "a.png")
    shutil.copy(disc_data / "images" / "case0.png", tmp_path / ".a.png")
    (tmp_path / "notes.txt").write_text("x")
    files = find_pictures(tmp_path)
    assert [path.name for path in files] == ["a.png"]
    assert [case.name for case in image_pool(files).unlabelled] == ["a"]


@pytest.mark.parametrize(
    "names", [["CT"], None, {}, {"1": "CT"}, {"-1": "CT"}, {"0": "CT", "00": "PET"}, {"a": "CT"}, "CT"]
)
def test_channels_that_are_not_numbered_from_0_are_told(tmp_path, names) -> None:
    (tmp_path / "imagesTr").mkdir()
    facts = {"channel_names": names, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(FewerError, match="must name every channel by its number from 0"):
        open_data(tmp_path)


def test_slices_of_one_subject_are_on_one_side(disc_data, tmp_path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for number in range(8):  # neighbours in the list of names, which a draw of single images would part
            shutil.copy(disc_data / kind / f"case{number}.png", tmp_path / kind / f"p{number // 2}_z{number}.png")
    data = open_data(tmp_path)
    for seed in range(3):
        for fold in range(4):
            split = data.split(fold, 5, seed)  # four subjects make four folds
            assert len(split.val) == 2 and not {n[:2] for n in split.val} & {n[:2] for n in split.train}
    assert any(len({n[:2] for n in data.split(0, 4, seed, "none").val}) == 2 for seed in range(3))
    with pytest.raises(FewerError, match="4 subjects make 4 folds"):
        data.split(4, 5)
    plan = plan_training(data, TrainSettings(width=4, levels=2))
    assert "8 images are of 4 subjects, such as 'p0' of p0_z0" in " ".join(plan.lines())
    alone = plan_training(data, TrainSettings(width=4, levels=2, subject="none"))
    assert "subjects" not in " ".join(alone.lines())


def test_a_large_subject_does_not_make_the_part_that_judges_the_larger_one() -> None:
    names = [f"sub1_z{z:02}" for z in range(18)] + ["sub2_z00", "sub2_z01"]
    data = SegmentData(Path(), "folder", tuple(Case(name, ()) for name in names))
    for seed in range(4):
        assert data.split(0, 5, seed).val == ("sub2_z00", "sub2_z01")
        folds = [data.split(fold, 5, seed).val for fold in range(2)]
        assert sorted(folds[0] + folds[1]) == sorted(names)  # each judges once
    with pytest.raises(FewerError, match="--subject none"):
        data.split(3)
    many = [f"sub{s:02}_z{z}" for s in range(12) for z in range(1 + s % 5)]
    data = SegmentData(Path(), "folder", tuple(Case(name, ()) for name in many))
    sizes = [len(data.split(fold, 5).val) for fold in range(5)]
    assert sum(sizes) == len(many) and max(sizes) - min(sizes) <= 2
