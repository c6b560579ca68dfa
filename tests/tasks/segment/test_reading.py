"""Files, layouts and geometry: what is written comes back; what does not fit is told in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import Case, Split, mask_values, open_data
from fewer.tasks.segment.files import Picture, read_picture, write_picture
from fewer.tasks.segment.nnunet import write_nnunet
from fewer.tasks.segment.reading import read_case, read_image
from tests.tasks.segment.simulated import picture, write_folder, write_raw


@pytest.mark.parametrize("suffix", [".png", ".tif", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_written_mask_comes_back(tmp_path: Path, suffix: str, dtype: type) -> None:
    if suffix == ".nii.gz":
        pytest.importorskip("nibabel", reason="needs the [medical] extra")
    array = np.random.default_rng(0).integers(0, 300 if dtype == np.uint16 else 200, (7, 5)).astype(dtype)
    like = Picture(array[None], (0.5, 2.0), spaced=True)
    found = read_picture(write_picture(tmp_path / f"a{suffix}", array, like))
    assert np.array_equal(found.array[0], array)
    assert found.spacing == pytest.approx((0.5, 2.0))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz"])
def test_a_written_volume_comes_back(tmp_path: Path, suffix: str) -> None:
    if suffix == ".nii.gz":
        pytest.importorskip("nibabel", reason="needs the [medical] extra")
    array = np.random.default_rng(0).integers(0, 9, (3, 7, 5)).astype(np.uint8)
    like = Picture(array[None], (3.0, 0.5, 2.0), spaced=True)
    found = read_picture(write_picture(tmp_path / f"a{suffix}", array, like))
    assert found.array.shape == (1, 3, 7, 5)
    assert np.array_equal(found.array[0], array)
    assert found.spacing == pytest.approx((3.0, 0.5, 2.0))


def test_colours_come_back(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 6, 4)).astype(np.uint8)
    for suffix in (".png", ".tif"):
        path = write_picture(tmp_path / f"a{suffix}", array, Picture(array, (1.0, 1.0)))
        assert np.array_equal(read_picture(path).array, array)


def test_an_oblique_affine_survives(tmp_path: Path) -> None:
    pytest.importorskip("nibabel", reason="needs the [medical] extra")
    data = open_data(write_raw(tmp_path / "raw"))
    sample = read_case(data, data.cases[0])
    assert sample.image.shape == (1, 20, 18, 16)
    assert sample.spacing == pytest.approx((0.8, 0.8, 2.0))
    assert sample.mask is not None
    assert np.array_equal(sample.mask, picture(0, (20, 18, 16))[1])
    again = read_picture(write_picture(tmp_path / "p.nii.gz", sample.mask, sample.picture))
    assert np.allclose(again.affine, sample.picture.affine)  # type: ignore[arg-type]


def test_both_layouts_hold_the_same(tmp_path: Path) -> None:
    data = open_data(write_folder(tmp_path / "data", 5))
    assert [case.name for case in data.cases] == [f"case{i}" for i in range(5)]
    assert data.classes == {"background": 0, "foreground": 255}
    samples = [read_case(data, case) for case in data.cases]
    write_nnunet(
        tmp_path / "Dataset001_Discs",
        [(s.name, s.picture, s.mask) for s in samples],
        classes={"background": 0, "foreground": 1},
        channels=["grey"],
        suffix=".png",
        splits=[Split(("case0", "case1", "case2"), ("case3", "case4"))],
    )
    raw = open_data(tmp_path / "Dataset001_Discs")
    assert (raw.layout, raw.channels, raw.count) == ("nnunet", ("grey",), 5)
    assert raw.split(0).val == ("case3", "case4")
    for sample in samples:
        other = read_case(raw, raw.case(sample.name))
        assert np.array_equal(other.image, sample.image)
        assert np.array_equal(other.mask, sample.mask)  # type: ignore[arg-type]


def test_masks_may_have_an_ending_and_images_may_lack_one(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 3)
    (root / "masks/case0.png").rename(root / "masks/case0_segmentation.png")
    (root / "masks/case1.png").unlink()
    data = open_data(root)
    assert [case.name for case in data.cases] == ["case0", "case2"]
    assert [case.name for case in data.unlabelled] == ["case1"]


def test_folds_are_seeded_and_cover_every_case_once(tmp_path: Path) -> None:
    data = open_data(write_folder(tmp_path / "data", 7))
    splits = [data.split(fold, 3, seed=4) for fold in range(3)]
    assert sorted(name for split in splits for name in split.val) == [case.name for case in data.cases]
    assert all(not set(split.train) & set(split.val) for split in splits)
    assert splits[1] == data.split(1, 3, seed=4)


def _wrong_shape(root: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "masks/case0.png")


def _colour_mask(root: Path) -> None:
    pixels = np.zeros((48, 40, 3), np.uint8)
    pixels[5, 5, 0] = 255
    Image.fromarray(pixels).save(root / "masks/case0.png")


def _picture_as_mask(root: Path) -> None:
    (root / "masks/case0.png").write_bytes((root / "images/case1.png").read_bytes())


def _cut_off(root: Path) -> None:
    path = root / "images/case0.png"
    path.write_bytes(path.read_bytes()[:60])


def _undeclared(root: Path) -> None:
    (root / "classes.json").write_text(json.dumps({"lesion": 1}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_wrong_shape, ("case0.png", "(9, 9)", "(48, 40)")),
        (_colour_mask, ("case0.png", "3 channels")),
        (_picture_as_mask, ("case0.png", "different values")),
        (_cut_off, ("case0.png", "cannot be read")),
        (_undeclared, ("255", "lesion 1")),
    ],
)
def test_what_does_not_fit_is_told_in_one_sentence(tmp_path: Path, spoil, words: tuple[str, ...]) -> None:
    root = write_folder(tmp_path / "data", 3)
    spoil(root)
    data = open_data(root)
    with pytest.raises(FewerError) as told:
        read_case(data, data.case("case0"))
    assert all(word in str(told.value) for word in words), told.value
    assert "\n" not in str(told.value)


def test_a_folder_without_layout_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(FewerError, match=r"needs images/ and masks/.*it holds pictures/"):
        open_data(tmp_path)
    with pytest.raises(FewerError, match="does not exist"):
        open_data(tmp_path / "nothing")


def test_a_mask_of_fractions_is_refused(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.tif", np.full((4, 4), 0.5, np.float32))
    with pytest.raises(FewerError, match="no class numbers"):
        mask_values(path)


def test_an_image_with_nan_is_told_by_its_path(tmp_path) -> None:
    image = np.ones((8, 8), np.float32)
    image[:2] = np.nan
    write_picture(tmp_path / "a.tif", image)
    with pytest.raises(FewerError, match=r"a.tif holds NaN or infinity in 0.25 of its voxels"):
        read_image(Case("a", (tmp_path / "a.tif",)))
