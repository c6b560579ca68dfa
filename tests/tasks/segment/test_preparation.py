"""What is fixed before a training: normalisation, spacing and patch, each against what it says it is."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import Case, SegmentData, open_data
from fewer.tasks.segment.files import Picture
from fewer.tasks.segment.preparation import Preparation, fit_preparation, fit_shape, resample
from fewer.tasks.segment.reading import Sample
from fewer.tasks.segment.settings import TrainSettings
from tests.tasks.segment.simulated import write_folder


def prepared(normalise: str = "zscore", **more) -> Preparation:
    values = {"mean": (), "std": (), "low": (), "high": (), "spacing": None, "patch": (8, 8), "channels": 1, **more}
    return Preparation(classes=("background", "a"), values=(0, 1), normalise=normalise, **values)


def test_inside_looks_at_the_voxels_above_the_air_alone() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((2, 20, 20), np.float32)
    image[:, 5:15, 5:15] = rng.normal(300, 40, (2, 10, 10))
    found = prepared("inside", channels=2).normalised(image)
    body = found[:, 5:15, 5:15]
    np.testing.assert_allclose(body.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(body.std((1, 2)), 1, atol=1e-5)
    # an image without air is normalised as a whole
    full = rng.normal(300, 40, (1, 20, 20)).astype(np.float32)
    np.testing.assert_allclose(prepared("inside").normalised(full), prepared("zscore").normalised(full), atol=1e-4)


def test_global_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "d", 4, (32, 32))
    rng = np.random.default_rng(0)
    for path in (tmp_path / "d" / "images").iterdir():
        Image.fromarray(rng.integers(40, 60, (32, 32, 3), dtype=np.uint8)).save(path)
    data = open_data(tmp_path / "d")
    found = fit_preparation(data, data.cases, TrainSettings(levels=3))
    assert (found.normalise, found.channels, found.spacing) == ("global", 3, None)
    np.testing.assert_allclose(found.mean, 49.5, atol=0.3)
    np.testing.assert_allclose(found.std, np.sqrt((20**2 - 1) / 12), rtol=0.02)
    again = found.normalised(np.full((3, 4, 4), found.mean[0], np.float32))
    np.testing.assert_allclose(again[0], 0, atol=1e-5)


@given(st.lists(st.integers(1, 400), min_size=2, max_size=3), st.integers(64, 100_000), st.sampled_from([4, 8, 16]))
def test_a_patch_covers_the_image_or_stays_within_its_voxels(space, voxels, multiple) -> None:
    patch = fit_shape(space, voxels, multiple)
    assert all(side > 0 and side % multiple == 0 for side in patch)
    covered = all(side >= n for side, n in zip(patch, space, strict=True))
    assert covered or prod(patch) <= voxels or set(patch) == {multiple}
    assert all(side < n + multiple for side, n in zip(patch, space, strict=True))  # no more than needed


def test_masks_are_resampled_without_new_classes_and_images_smoothly() -> None:
    mask = torch.zeros(1, 12, 10)
    mask[:, 3:9, 2:8] = 7
    assert set(resample(mask, (24, 25), nearest=True).unique().tolist()) == {0, 7}
    assert torch.equal(resample(resample(mask, (24, 20), nearest=True), (12, 10), nearest=True), mask)
    ramp = torch.linspace(0, 1, 32).expand(1, 8, 32)
    small = resample(ramp, (4, 16))[0, 0]
    assert (small.diff() > 0).all() and abs(float(small.mean()) - 0.5) < 1e-3


def test_voxels_of_different_size_are_brought_to_the_median(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="needs the [medical] extra")
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index, thickness in enumerate((1.0, 2.0, 4.0)):
        affine = np.diag([0.5, 0.5, thickness, 1])
        for folder, values in (("images", np.random.default_rng(index).normal(0, 1, (16, 16, 8))), ("masks", None)):
            array = np.zeros((16, 16, 8), np.uint8) if values is None else values.astype(np.float32)
            array[4:8, 4:8, 2:4] = 1
            nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / folder / f"c{index}.nii.gz")
    data = open_data(tmp_path)
    found = fit_preparation(data, data.cases, TrainSettings(levels=2))
    assert found.spacing is not None and sorted(found.spacing) == [0.5, 0.5, 2.0]
    image, mask = found.sample(
        Sample(
            "x",
            np.zeros((1, 16, 16, 8)),
            np.ones((16, 16, 8), np.uint8),
            Picture(np.zeros((1, 16, 16, 8)), (0.5, 0.5, 4.0), spaced=True),
        )
    )
    assert image.shape == (1, 16, 16, 16) and mask is not None and mask.shape == (16, 16, 16) and mask.all()
    native = fit_preparation(data, data.cases, TrainSettings(levels=2, spacing="native"))
    assert native.spacing is None


def test_an_image_without_a_spacing_is_not_taken_for_one_of_1_mm() -> None:
    image = np.zeros((1, 8, 8), np.float32)
    lost, known = Picture(image, (1.0, 1.0)), Picture(image, (1.0, 2.0), spaced=True)
    own = prepared(spacing=(2.0, 0.5), spaced=True)
    assert own.image(image, known, "case1").shape == (1, 4, 32)
    with pytest.raises(FewerError, match=r"case1 gives no spacing, and the network works at 2 x 0\.5 mm; add a NAME"):
        own.image(image, lost, "case1")
    # nothing is resampled, or the images of the training gave no spacing either
    assert prepared(spaced=True).image(image, lost, "case1").shape == (1, 8, 8)
    assert prepared(spacing=(2.0, 0.5)).image(image, lost, "case1").shape == (1, 4, 16)
    assert Preparation.of(own.to_dict()) == own


def test_a_training_whose_images_partly_give_a_spacing_is_told(tmp_path: Path) -> None:
    write_folder(tmp_path, 4)
    for index, path in enumerate(sorted((tmp_path / "images").glob("*.png"))[:3]):
        path.with_suffix(".json").write_text(json.dumps({"spacing": [1.0 + index, 1.0]}))
    data = open_data(tmp_path)
    with pytest.raises(FewerError, match=r"gives no spacing, others do; add a NAME\.json with it, or give --spacing"):
        fit_preparation(data, data.cases, TrainSettings(levels=2))
    assert fit_preparation(data, data.cases, TrainSettings(levels=2, spacing="native")).spacing is None


@pytest.mark.parametrize(
    ("shape", "says"), [((1, 8, 8, 8), "is 3-dimensional, the network 2-dimensional"), ((2, 8, 8), "has 2 channels")]
)
def test_an_image_of_another_kind_is_told(shape, says) -> None:
    array = np.zeros(shape, np.float32)
    with pytest.raises(FewerError, match=f"case1 {says}"):
        prepared().image(array, Picture(array, (1.0,) * (len(shape) - 1)), "case1")


def test_a_recipe_of_something_else_and_a_folder_without_masks_are_told() -> None:
    with pytest.raises(FewerError, match="does not describe a segmentation"):
        Preparation.of({"classes": ["a"], "colour": "blue"})
    with pytest.raises(FewerError, match="has no annotated case"):
        fit_preparation(SegmentData(Path("d"), "folder", ()), [], TrainSettings())
    assert Case("a", ()).mask is None


def test_normalisation_of_ct_keeps_units_and_zscore_does_not() -> None:
    common = ((0, 1), 1)
    rest = {"spacing": None, "patch": (8, 8)}
    image = np.random.default_rng(0).normal(100, 20, (1, 9, 9)).astype(np.float32)
    ct = Preparation(("background", "a"), *common, "ct", (100.0,), (20.0,), (60.0,), (140.0,), **rest)
    z = Preparation(("background", "a"), *common, "zscore", (), (), (), (), **rest)
    assert np.allclose(z.normalised(image + 50), z.normalised(image), atol=1e-4)
    assert ct.normalised(image + 5).mean() > ct.normalised(image).mean() + 0.1
    assert np.abs(ct.normalised(10 * image)).max() <= 2.0 + 1e-5
    assert Preparation.of(json.loads(json.dumps(ct.to_dict()))) == ct
