"""Batches of a training: the very numbers of the usual way, moved as a loop would move them, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fewer.core.errors import FewerError
from fewer.core.progress import Silent
from fewer.data.decode import to_array
from fewer.data.preprocess import Preprocess
from fewer.tasks.classify import batches
from fewer.tasks.classify.batches import Augmented, exact_pixels, moved, normalised
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.evaluate import batches_of
from fewer.tasks.classify.pictures import ArrayPictures, JoinedPictures, pixels_of
from fewer.tasks.classify.readers import open_data
from fewer.tasks.classify.settings import TrainSettings
from tests.tasks.classify.shapes import write_folders

RNG = np.random.default_rng(0)
COLOUR, GREY = RNG.integers(0, 256, (7, 16, 16, 3), np.uint8), RNG.integers(0, 256, (5, 16, 16), np.uint8)
SAME = Preprocess((3, 16, 16), crop=1.0)


def data(pictures) -> ClassifyData:
    names = tuple(f"{i:03d}" for i in range(len(pictures)))
    return ClassifyData(Path("x"), pictures, names, np.arange(len(names)) % 2, ("even", "odd"))


@pytest.mark.parametrize("pixels", [COLOUR, GREY])
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_become_the_very_numbers_of_the_usual_way(pixels: np.ndarray, channels: int) -> None:
    pictures, how = ArrayPictures(pixels), Preprocess((channels, 16, 16), mean=0.4, std=0.3, crop=1.0)
    found = exact_pixels(pictures, np.array([2, 0]), how)
    if pixels.ndim == 4 and channels == 1:
        assert found is None  # colours to grey is the decoder's business
        return
    assert found is not None
    wanted = np.stack([to_array(pictures[i], how) for i in (2, 0)])
    assert np.array_equal(normalised(found, how).numpy(), wanted)


@pytest.mark.parametrize("how", [Preprocess((3, 16, 16)), Preprocess((3, 32, 32), crop=1.0)])
def test_images_that_must_be_cut_or_resized_are_decoded(how: Preprocess) -> None:
    assert exact_pixels(ArrayPictures(COLOUR), np.arange(3), how) is None
    found = Augmented(data(ArrayPictures(COLOUR)), np.arange(7), how, TrainSettings(augment="none", batch=2), Silent())
    assert tuple(found.batch(0)[0].shape) == (2, *how.input_size)


def test_pixels_of_joined_parts_are_those_of_each() -> None:
    joined = JoinedPictures([ArrayPictures(COLOUR[:4]), ArrayPictures(COLOUR[4:])])
    rows = np.array([6, 0, 3, 4])
    assert np.array_equal(pixels_of(joined, rows), COLOUR[rows])
    assert np.array_equal(np.asarray(joined[5]), COLOUR[5]) and joined.raw(5) == COLOUR[5].tobytes()
    assert pixels_of(JoinedPictures([ArrayPictures(COLOUR), ArrayPictures(GREY)]), rows) is None


def test_moving_is_what_a_loop_over_padded_images_does() -> None:
    images = torch.from_numpy(COLOUR).permute(0, 3, 1, 2)
    moves, flips = torch.from_numpy(RNG.integers(-2, 3, (7, 2))), torch.tensor([0, 1, 0, 1, 1, 0, 0]).bool()
    found = moved(images, moves, flips)
    for image, (down, right), flip, got in zip(images.float(), moves.tolist(), flips, found, strict=True):
        padded = torch.nn.functional.pad(image[None], (2, 2, 2, 2), mode="reflect")[0]
        wanted = padded[:, 2 + down : 18 + down, 2 + right : 18 + right]
        assert torch.equal(got.float(), wanted.flip(-1) if flip else wanted)
    assert np.array_equal(COLOUR, images.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("augment", ["none", "flip", "standard"])
def test_a_batch_depends_on_seed_and_step_alone(augment: str) -> None:
    settings = TrainSettings(augment=augment, batch=3, seed=1)
    first, second = (Augmented(data(ArrayPictures(COLOUR)), np.arange(7), SAME, settings, Silent()) for _ in range(2))
    later = [first.batch(step) for step in range(5)]
    for step in (4, 0, 3):  # a training that goes on asks for them in another order
        assert all(torch.equal(a, b) for a, b in zip(second.batch(step), later[step], strict=True))
    seen = torch.cat([labels for _, labels in later[:2]])
    assert len(seen) == 6 and later[0][0].dtype == torch.float32
    assert torch.equal(first.held, torch.from_numpy(COLOUR).permute(0, 3, 1, 2))  # nothing is changed in place


def test_what_does_not_fit_into_memory_is_read_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> Augmented:
        return Augmented(data(ArrayPictures(COLOUR)), np.arange(7), SAME, TrainSettings(batch=4), Silent())

    held = made()
    monkeypatch.setattr("fewer.tasks.classify.batches.HELD", 10)
    small = made()
    assert small.held is None and torch.equal(small.batch(2)[0], held.batch(2)[0])


def test_bytes_and_decoded_images_make_the_same_batches() -> None:
    settings = TrainSettings(batch=4)
    fast = Augmented(data(ArrayPictures(COLOUR)), np.arange(7), SAME, settings, Silent())
    slow = Augmented(data(JoinedPictures([_Pictures(COLOUR)])), np.arange(7), SAME, settings, Silent())
    assert fast.held.dtype == torch.uint8 and slow.held.dtype == torch.float32
    assert torch.equal(fast.batch(1)[0], slow.batch(1)[0])
    (quick, kept), (usual, same) = (next(iter(batches_of(one.data, np.arange(7), SAME, 5, []))) for one in (fast, slow))
    assert torch.equal(quick, usual) and kept == same


class _Pictures:
    """Not known to be arrays."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.inside = ArrayPictures(pixels)

    def __len__(self) -> int:
        return len(self.inside)

    def __getitem__(self, index: int):
        return self.inside[index]

    def raw(self, index: int) -> bytes:
        return self.inside.raw(index)


@pytest.mark.parametrize("room", [4 << 30, 0])
def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path, monkeypatch, room: int) -> None:
    monkeypatch.setattr(batches, "HELD", room)
    root = write_folders(tmp_path / "photos", each=4)
    (root / "disc" / "disc001.png").write_bytes(b"no image")
    data = open_data(root)
    how = Preprocess((3, 24, 24), mean=0.5, std=0.25)
    made = Augmented(data, np.arange(len(data)), how, TrainSettings(batch=12, augment="flip"), Silent())
    for step in range(2):
        images, labels = made.batch(step)
        assert len(images) == len(labels) and bool(torch.isfinite(images).all())
    assert sum(len(labels) for _, labels in made.plain(5)) == 11
    assert list(made.skipped) == ["disc/disc001.png"]
    for path in root.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(FewerError, match="can be read"):
        Augmented(open_data(root), np.arange(4), how, TrainSettings(), Silent()).batch(0)
