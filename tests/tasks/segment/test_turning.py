"""Scans whose axes run otherwise are turned exactly, and what a network finds lies where the file's voxels are."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewer.tasks.segment.dataset import open_data
from fewer.tasks.segment.files import Picture
from fewer.tasks.segment.inference import predict_mask
from fewer.tasks.segment.preparation import Preparation, fit_preparation
from fewer.tasks.segment.reading import Sample, read_case
from fewer.tasks.segment.settings import TrainSettings
from fewer.tasks.segment.turning import axes_of, most_common_axes, order_of, turn
from tests.tasks.segment.test_inference import Bright

CODES = [
    "".join(letters) for order in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*order)
]


def lying(code: str, array: np.ndarray) -> Picture:
    """A picture of the voxels of ``array``, which lie as RAS, stored in another order of axes."""
    found = turn(torch.from_numpy(array), "RAS", code).numpy()
    affine = np.eye(4)
    affine[:3, :3] = 0
    for own, letter in enumerate(code):
        affine["LRPAIS".index(letter) // 2, own] = 1 if letter in "RAS" else -1
    return Picture(found, (1.0, 1.0, 1.0), affine, True)


@pytest.mark.parametrize("code", CODES)
def test_all_orders_and_directions_are_turned_and_turned_back(code: str) -> None:
    array = np.arange(24.0, dtype=np.float32).reshape(1, 2, 3, 4)
    picture = lying(code, array)
    assert axes_of(picture) == code
    assert np.array_equal(turn(torch.from_numpy(picture.array), code, "RAS").numpy(), array)
    # the same as the affine says, voxel by voxel
    assert picture.affine is not None
    falls = picture.affine[:3, :3].sum(1) < 0
    for at in np.ndindex(*picture.space):
        place = (picture.affine[:3, :3] @ np.array(at)).astype(int)
        body = np.where(falls, np.array(array.shape[1:]) - 1 + place, place)
        assert picture.array[(0, *at)] == array[(0, *body)]


def test_an_oblique_scan_names_no_axis_twice() -> None:
    turned = np.eye(4)
    c = np.sqrt(0.5)
    turned[:3, :3] = [[c, -c, 0], [c, c, 0], [0, 0, 1]]
    found = axes_of(Picture(np.zeros((1, 2, 2, 2)), (1.0,) * 3, turned))
    assert {"LPI".find(letter) + "RAS".find(letter) + 1 for letter in found} == {0, 1, 2}


def test_most_scans_say_which_way() -> None:
    array = np.zeros((1, 2, 3, 4), np.float32)
    pictures = [lying(code, array) for code in ("RAS", "LPS", "LPS")]
    nowhere = Picture(array, (1.0,) * 3)
    assert most_common_axes([*pictures, nowhere]) == "LPS" and most_common_axes([nowhere]) is None
    assert order_of("", "LPS") is None and order_of("RAS", None) is None


@pytest.mark.parametrize("code", ["RAS", "LPS", "PIR", "SAL"])
def test_a_mask_lies_on_the_voxels_of_its_file_however_they_lie(code: str) -> None:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    array = np.zeros((1, 12, 16, 20), np.float32)
    array[0, 2:9, 3:7, 11:18] = 1
    picture = lying(code, array)
    fixed = Preparation(("b", "a"), (0, 1), 1, "none", (), (), (), (), (1.0, 1.0, 2.0), (8, 8, 8), "RAS")
    assert fixed.shape_of(picture) == (12, 16, 10)
    found = predict_mask(Bright(), Sample("x", picture.array, None, picture), fixed)
    assert found.shape == picture.space and (found == (picture.array[0] > 0.5)).mean() > 0.97
    straight = predict_mask(Bright(), Sample("x", array, None, lying("RAS", array)), fixed)
    assert np.array_equal(turn(torch.from_numpy(straight)[None], "RAS", code)[0].numpy(), found)


def test_scans_of_one_body_are_the_same_input_in_whatever_order_they_are_stored(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="needs the [medical] extra")
    rng = np.random.default_rng(0)
    array = rng.normal(size=(1, 8, 16, 24)).astype(np.float32)
    mask = (array > 1).astype(np.uint8)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index, code in enumerate(("RAS", "LPI", "SPR", "RAS")):
        for folder, values in (("images", array), ("masks", mask)):
            picture = lying(code, values)
            affine = picture.affine @ np.diag([*(2.0 if letter in "SI" else 1.0 for letter in code), 1.0])
            nibabel.save(nibabel.Nifti1Image(picture.array[0], affine), tmp_path / folder / f"c{index}.nii.gz")
    data = open_data(tmp_path)
    fitted = fit_preparation(data, data.cases, TrainSettings(levels=3))
    assert fitted.axes == "RAS" and fitted.spacing is None  # 1 x 1 x 2 mm in each, if in another order
    pairs = [fitted.sample(read_case(data, case)) for case in data.cases]
    for image, found in pairs:
        assert image.shape == (1, 8, 16, 24)
        torch.testing.assert_close(image, pairs[0][0], rtol=1e-5, atol=1e-5)
        assert found is not None and torch.equal(found, torch.from_numpy(mask[0]))
    again = Preparation.of(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    old = {key: value for key, value in fitted.to_dict().items() if key != "axes"}
    assert Preparation.of(old) == replace(fitted, axes=None)  # recipes of older versions are read


@pytest.mark.parametrize("axes", ["RA", "RRS", "XYZ", "RASS"])
def test_a_recipe_with_axes_that_are_none_is_refused(axes: str) -> None:
    from fewer.core.errors import FewerError

    fixed = Preparation(("b", "a"), (0, 1), 1, "none", (), (), (), (), None, (8, 8, 8)).to_dict()
    with pytest.raises(FewerError, match="axes"):
        Preparation.of(fixed | {"axes": axes})


@pytest.mark.parametrize(("code", "mirror"), [("RAS", 0), ("PIR", 2), ("LPS", 0)])
def test_scans_are_mirrored_from_left_to_right_wherever_that_axis_is(tmp_path: Path, code: str, mirror: int) -> None:
    nibabel = pytest.importorskip("nibabel", reason="needs the [medical] extra")
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        picture = lying(code, np.ones((1, 8, 8, 8), np.uint8))
        nibabel.save(nibabel.Nifti1Image(picture.array[0], picture.affine), tmp_path / folder / "a.nii.gz")
    data = open_data(tmp_path)
    assert fit_preparation(data, data.cases, TrainSettings(levels=3)).mirror == mirror


def test_a_picture_is_mirrored_along_its_rows_and_a_sagittal_slice_not_at_all(disc_data: Path) -> None:
    from fewer.tasks.segment.preparation import _sideways

    data = open_data(disc_data)
    assert fit_preparation(data, data.cases, TrainSettings(levels=3)).mirror == 1
    assert _sideways("AS", 2, Path("a.nii.gz")) is None and _sideways(None, 3, Path("a.nii")) == 0
    assert _sideways(None, 3, Path("pages.tif")) == 2


@pytest.mark.filterwarnings("error")
def test_a_slice_without_a_thickness_says_how_it_lies() -> None:
    flat = Picture(np.zeros((1, 5, 6)), (1.0, 2.0), np.diag([-1.0, 2.0, 0.0, 1.0]))
    assert axes_of(flat) == "LA"
