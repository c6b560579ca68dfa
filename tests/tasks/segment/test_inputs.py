"""Patches for methods without labels: of other cases for steering than for judging, and the same every time."""

from __future__ import annotations

import shutil

import pytest
import torch

from fewer.models.spec import load_model
from fewer.tasks.segment.dataset import open_data
from fewer.tasks.segment.inputs import images
from fewer.tasks.segment.loaded import unseen_cases


def test_cases_that_judged_the_training_are_held_out(disc_data, disc_run) -> None:
    loaded = load_model(str(disc_run))
    steer = images(loaded, disc_data, 6, part="calibration", seed=0)
    judge = images(loaded, disc_data, 6, part="heldout", seed=0)
    held = {case.name for case in unseen_cases(loaded, open_data(disc_data))}
    assert {path.stem for path in judge.files} <= held and not {path.stem for path in steer.files} & held
    assert len(steer.tensor) == 6 and steer.tensor.shape[1] == 1
    again = images(loaded, disc_data, 6, part="calibration", seed=0)
    assert torch.equal(again.tensor, steer.tensor)
    assert not torch.equal(images(loaded, disc_data, 6, part="calibration", seed=1).tensor, steer.tensor)


def test_images_alone_will_do_and_a_broken_one_is_named(disc_data, disc_run, tmp_path) -> None:
    shutil.copytree(disc_data / "images", tmp_path / "photos")
    for path in sorted((tmp_path / "photos").iterdir())[:1]:
        path.write_bytes(b"broken")
    loaded = load_model(str(disc_run))
    found = [images(loaded, tmp_path / "photos", 4, part=part, seed=0) for part in ("calibration", "heldout")]
    skipped = {path.name for one in found for path, _ in one.skipped}
    assert skipped == {"case0.png"}
    assert not {path.name for path in found[0].files} & {path.name for path in found[1].files}


def test_a_folder_without_images_is_told(disc_run, tmp_path) -> None:
    from fewer.core.errors import FewerError

    with pytest.raises(FewerError):
        images(load_model(str(disc_run)), tmp_path, 4, part="calibration", seed=0)
