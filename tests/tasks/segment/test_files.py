"""Files of pictures: what is written is read again, with its spacing; what cannot be read is told."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.tasks.segment.files import picture_stem, read_picture, suffix_of, write_picture
from fewer.tasks.segment.picture import Picture


@pytest.mark.parametrize("name", ["a.png", "a.tif", "deep.er/b.tiff"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_integers_come_back(tmp_path, name: str, kind) -> None:
    array = np.arange(20, dtype=kind).reshape(4, 5) * 12
    found = read_picture(write_picture(tmp_path / name, array), mask=True)
    assert (found.array[0] == array).all() and found.space == (4, 5)


def test_a_volume_keeps_its_spacing_beside_a_tiff(tmp_path) -> None:
    like = Picture(np.zeros((1, 3, 4, 5)), (2.0, 0.5, 0.5), spaced=True)
    path = write_picture(tmp_path / "m.tif", np.ones((3, 4, 5), np.uint8), like)
    found = read_picture(path)
    assert found.spaced and found.spacing == (2.0, 0.5, 0.5) and found.space == (3, 4, 5)


def test_names_and_endings() -> None:
    from pathlib import Path

    assert suffix_of(Path("a.b.NII.GZ")) == ".nii.gz" and picture_stem(Path("x/case.1.nii.gz")) == "case.1"


def test_what_cannot_be_read_or_written_is_told(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    for path, words in ((tmp_path / "a.png", "cannot be read"), (tmp_path / "b.txt", "known endings")):
        with pytest.raises(FewerError, match=words):
            read_picture(path)
    with pytest.raises(FewerError, match="lossless"):
        write_picture(tmp_path / "a.jpg", np.zeros((3, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
