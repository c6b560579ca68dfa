"""Files of pictures: what is written is read again, with its spacing; what cannot be read is told."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import mask_values
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


nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel (pip install fewer[medical])")


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "v.nii.gz"
    array = np.random.default_rng(0).normal(size=(40, 30, 20)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    return path


def test_a_volume_whose_checksum_is_wrong_is_told(volume) -> None:
    """nibabel reads no further than the last voxel, and so misses what a copy or a disk has damaged."""
    whole = volume.read_bytes()
    volume.write_bytes(whole[:-8] + bytes(4) + whole[-4:])
    with pytest.raises(FewerError, match=r"v\.nii\.gz cannot be read \(CRC check failed"):
        read_picture(volume)


@pytest.mark.parametrize("behind", [b"padding", bytes(512), gzip.compress(b"more", mtime=0)])
def test_what_stands_behind_an_archive_is_harmless(volume, behind: bytes) -> None:
    wanted = read_picture(volume).array
    volume.write_bytes(volume.read_bytes() + behind)
    assert np.array_equal(read_picture(volume).array, wanted)


@pytest.mark.parametrize(
    ("zooms", "fine"), [((0, 1, 1), False), ((0, 0, 0), False), ((2, 1, 1), True), ((-2, 1, 1), True)]
)
def test_a_spacing_of_nothing_is_never_one_millimetre(volume, zooms, fine: bool) -> None:
    raw = bytearray(gzip.decompress(volume.read_bytes()))
    struct.pack_into("<2h", raw, 252, 0, 0)  # neither a qform nor a sform
    struct.pack_into("<3f", raw, 80, *zooms)
    volume.write_bytes(gzip.compress(bytes(raw)))
    if fine:
        assert read_picture(volume).spacing == (2.0, 1.0, 1.0)
    else:
        with pytest.raises(FewerError, match=r"gives the spacing 0 x .* it must be positive"):
            read_picture(volume)


def test_a_mask_has_one_number_in_every_channel_whoever_reads_it(tmp_path) -> None:
    numbers = np.array([[0, 1], [2, 2]], np.uint8)
    other = numbers[::-1]
    flat, lines = (1.0, 1.0), np.eye(4)
    same = {
        "grey": [numbers], "colours": [numbers] * 3, "with transparency": [numbers] * 3 + [other],
        "grey with transparency": [numbers, other],
    }  # fmt: skip
    for planes in same.values():
        assert np.array_equal(Picture(np.stack(planes), flat).numbers, numbers)
    for planes in ([numbers, numbers, other], [numbers, other, numbers, numbers], [numbers] * 4 + [other]):
        assert Picture(np.stack(planes), flat).numbers is None
    # a volume has no transparency
    assert Picture(np.stack([numbers[..., None]] * 3 + [other[..., None]]), (1.0,) * 3, lines).numbers is None
    Image.fromarray(np.dstack([numbers] * 3 + [other])).save(tmp_path / "m.png")
    assert mask_values(tmp_path / "m.png") == [0, 1, 2]


def test_class_numbers_that_were_saved_as_floats_are_whole(tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="needs the [medical] extra")
    values = np.array([[[0.0, 1.0000001], [2.9999, 255.0]]], np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "m.nii.gz")
    assert read_picture(tmp_path / "m.nii.gz", mask=True).array.ravel().tolist() == [0, 1, 3, 255]
    assert read_picture(tmp_path / "m.nii.gz").array.ravel()[1] == np.float32(1.0000001)
    nibabel.save(nibabel.Nifti1Image(values + np.float32(0.3), np.eye(4)), tmp_path / "p.nii.gz")
    assert pytest.approx(read_picture(tmp_path / "p.nii.gz", mask=True).array.min()) == 0.3  # a probability stays one
