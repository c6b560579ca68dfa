"""Masks on the voxels of their images: named after them, kept unless asked, with broken images left out."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.segment.predict import predict
from fewer.tasks.segment.settings import PredictSettings


@pytest.fixture(name="photos")
def _photos(disc_data, tmp_path):
    shutil.copytree(disc_data / "images", tmp_path / "photos")
    (tmp_path / "photos" / "case7.png").write_bytes(b"broken")
    return tmp_path / "photos"


def test_a_mask_for_each_image_and_a_word_for_each_that_is_broken(disc_run, photos, tmp_path) -> None:
    (photos / "phone.heic").write_bytes(b"x")
    done = predict(disc_run, photos, out=tmp_path / "masks", settings=PredictSettings(overlay=True))
    assert [path.stem for path in done.masks] == [f"case{i}" for i in range(7)]
    assert [path.name for path, _ in done.skipped] == ["case7.png", "phone.heic"]
    mask = np.asarray(Image.open(tmp_path / "masks" / "case0.png"))
    assert mask.shape == (32, 36) and {*np.unique(mask)} <= {0, 255}
    assert (tmp_path / "masks" / "overlays" / "case0.png").exists()


def test_masks_are_kept_unless_they_are_replaced(disc_run, photos, tmp_path) -> None:
    out = tmp_path / "masks"
    predict(disc_run, photos, out=out)
    (out / "case0.png").write_bytes(b"mine")
    with pytest.raises(FewerError, match="exists already"):
        predict(disc_run, photos, out=out)
    predict(disc_run, photos, out=out, resume=True)
    assert (out / "case0.png").read_bytes() == b"mine"
    predict(disc_run, photos, out=out, overwrite=True)
    assert (out / "case0.png").read_bytes() != b"mine"


def test_masks_never_go_among_the_images(disc_run, photos) -> None:
    with pytest.raises(FewerError):
        predict(disc_run, photos, out=photos, overwrite=True)
    with pytest.raises(FewerError, match="no run folder"):
        predict(photos, photos, out=photos.parent / "masks")


def test_masks_never_replace_those_that_people_drew(disc_run, disc_data, tmp_path) -> None:
    shutil.copytree(disc_data, tmp_path / "data")
    before = {path.name: path.read_bytes() for path in (tmp_path / "data" / "masks").iterdir()}
    with pytest.raises(FewerError, match="never written over"):
        predict(disc_run, tmp_path / "data", out=tmp_path / "data" / "masks", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "data" / "masks").iterdir()} == before


def test_a_name_as_long_as_names_can_be_gets_its_mask(disc_run, disc_data, tmp_path) -> None:
    (tmp_path / "long").mkdir()
    name = "a" * 251 + ".png"
    shutil.copy(disc_data / "images" / "case0.png", tmp_path / "long" / name)
    assert [path.name for path in predict(disc_run, tmp_path / "long", out=tmp_path / "masks").masks] == [name]


def test_old_overlays_stay_beside_new_ones(disc_run, photos, tmp_path) -> None:
    how = PredictSettings(overlay=True)
    predict(disc_run, photos, out=tmp_path / "masks", settings=how)
    (photos / "case1.png").unlink()
    predict(disc_run, photos, out=tmp_path / "masks", settings=how, overwrite=True)
    assert {path.stem for path in (tmp_path / "masks" / "overlays").iterdir()} >= {"case0", "case1"}


@pytest.mark.parametrize("declared", [True, False])
def test_a_folder_of_nnunet_without_labels_is_predicted(declared, disc_run, photos, tmp_path) -> None:
    raw = tmp_path / "raw"
    (raw / "imagesTr").mkdir(parents=True)
    for index, path in enumerate(sorted(photos.glob("*.png"))[:2]):
        shutil.copy(path, raw / "imagesTr" / f"c{index}_0000.png")
    if declared:
        (raw / "dataset.json").write_text('{"file_ending": ".png"}')
    done = predict(disc_run, raw, out=tmp_path / "masks")
    assert sorted(path.name for path in done.masks) == ["c0.png", "c1.png"]
