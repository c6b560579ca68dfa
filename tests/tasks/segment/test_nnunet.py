"""A raw folder of nnU-Net that was written is read back: cases, classes, channels, spacing and splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import Split, open_data
from fewer.tasks.segment.files import Picture
from fewer.tasks.segment.nnunet import write_nnunet
from fewer.tasks.segment.reading import read_case

CLASSES = {"background": 0, "lesion": 1}


def cases(channels: int = 1, kind=np.uint8, spacing=(1.0, 1.0), spaced=False):
    for index in range(3):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 200, (channels, 12, 10)).astype(kind)
        mask = (rng.random((12, 10)) < 0.2).astype(np.uint8) if index < 2 else None
        yield f"c{index}", Picture(image, spacing, spaced=spaced), mask


def written(folder: Path, given, **more) -> Path:
    return write_nnunet(folder, given, **{"classes": CLASSES, "channels": ["grey"], "suffix": ".png", **more}).parent


@pytest.mark.parametrize(
    ("channels", "kind", "files"), [(1, np.uint8, 1), (2, np.uint8, 2), (3, np.uint8, 1), (3, np.uint16, 3)]
)
def test_what_is_written_is_read_back(tmp_path, channels, kind, files) -> None:
    names = [f"channel {index}" for index in range(channels)]
    splits = [Split(("c0",), ("c1",))]
    data = open_data(written(tmp_path / "d", cases(channels, kind), channels=names, splits=splits))
    assert data.layout == "nnunet" and data.classes == CLASSES and data.count == 2
    assert [case.name for case in data.cases] == ["c0", "c1"] and [case.name for case in data.unlabelled] == ["c2"]
    assert data.splits == tuple(splits) and list(data.channels) == names
    for case, (_, picture, mask) in zip(data.cases, cases(channels, kind), strict=False):
        assert len(case.images) == files
        sample = read_case(data, case)
        np.testing.assert_array_equal(sample.image, picture.array)
        np.testing.assert_array_equal(sample.mask, mask)


def test_the_size_of_voxels_is_kept_beside_a_tif(tmp_path) -> None:
    data = open_data(written(tmp_path / "d", cases(spacing=(0.5, 2.0), spaced=True), suffix=".tif"))
    assert read_case(data, data.cases[0]).spacing == (0.5, 2.0)
    assert json.loads((tmp_path / "d" / "imagesTr" / "c0.json").read_text()) == {"spacing": [0.5, 2.0]}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"suffix": ".jpg"}, "needs a lossless ending"),
        ({"classes": {"background": 0, "lesion": 2}}, "numbered from 0 without gaps"),
    ],
)
def test_what_nnunet_would_not_read_is_refused_before_anything_is_written(tmp_path, more, says) -> None:
    with pytest.raises(FewerError, match=says):
        written(tmp_path / "d", cases(), **more)
    assert not (tmp_path / "d").exists()


def test_a_folder_of_others_stays_as_it_is(tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FewerError, match="is not empty"):
        written(tmp_path, cases())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
