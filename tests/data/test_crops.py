"""Random views for training: the same for the same step, every image in turn, and broken files are left out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewer.core.errors import FewerError
from fewer.data.crops import FileViews, TensorViews
from fewer.data.decode import read_image, to_array
from fewer.data.preprocess import Preprocess

SMALL = Preprocess(input_size=(3, 16, 16), mean=0.0, std=1.0)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Images of one grey value each, so that a view tells its file."""
    paths = [tmp_path / f"{value}.png" for value in range(0, 250, 50)]
    for path in paths:
        Image.new("RGB", (40, 30), (int(path.stem),) * 3).save(path)
    return paths


def values(views: FileViews, step: int, count: int) -> list[int]:
    return [round(float(v) * 255) for v in views.draw(step, count).mean((1, 2, 3))]


def test_every_file_comes_once_before_any_comes_again(files):
    views = FileViews(files, SMALL, seed=3)
    for epoch in range(3):
        assert sorted(values(views, epoch, 5)) == [0, 50, 100, 150, 200]


def test_a_step_draws_the_same_whatever_was_drawn_before(files):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(files[0])
    first, second = FileViews(files, SMALL, seed=1), FileViews(files, SMALL, seed=1)
    for step in range(4):
        first.draw(step, 3)
    assert torch.equal(first.draw(4, 3), second.draw(4, 3))
    assert not torch.equal(first.draw(0, 5), FileViews(files, SMALL, seed=2).draw(0, 5))


def test_views_are_crops_of_which_half_are_mirrored(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 40, dtype=np.uint8)[None, :, None], (30, 1, 3))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    views = FileViews([tmp_path / "ramp.png"], SMALL, seed=0).draw(0, 200)
    rising = (views[:, 0, :, -1] > views[:, 0, :, 0]).float().mean()
    assert 0.35 < float(rising) < 0.65
    spans = (views[:, 0, 0].amax(1) - views[:, 0, 0].amin(1)).numpy()
    assert spans.min() < 0.5 < spans.max()


def test_whole_images_come_in_turns_with_crops(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).save(tmp_path / f"{index}.png")
    paths = sorted(tmp_path.glob("*.png"))
    wanted = {tuple(to_array(read_image(path), SMALL).ravel()) for path in paths}
    mirrored = {tuple(to_array(read_image(path), SMALL)[..., ::-1].ravel()) for path in paths}
    views = FileViews(paths, SMALL, seed=0, whole=True)
    passes = [{tuple(view.numpy().ravel()) for view in views.draw(epoch, 3)} for epoch in range(6)]
    assert passes[0] == wanted
    assert passes[2] <= wanted | mirrored and passes[4] <= wanted | mirrored
    assert not (passes[1] | passes[3] | passes[5]) & (wanted | mirrored)


def test_a_file_that_breaks_on_the_way_is_left_out(files):
    files[2].write_bytes(b"no image")
    views = FileViews(files, SMALL, seed=0)
    assert set(values(views, 0, 10)) == {0, 50, 150, 200}
    assert list(views.broken) == [files[2]]


def test_a_folder_that_vanished_is_told(files):
    views = FileViews(files, SMALL, seed=0)
    for path in files:
        path.unlink()
    with pytest.raises(FewerError, match="none of the 5 images can be read any more"):
        views.draw(0, 1)


def test_large_photos_are_made_smaller_once(tmp_path):
    Image.new("RGB", (900, 600)).save(tmp_path / "large.png")
    views = FileViews([tmp_path / "large.png"], SMALL, seed=0)
    views.draw(0, 1)
    assert min(next(iter(views._decoded.values())).size) == 64


@pytest.mark.parametrize("shape", [(6, 9), (6, 2, 40), (6, 1, 8, 8, 8), (6, 5, 40, 40)])
def test_what_is_no_photo_is_drawn_as_it_is(shape):
    images = torch.randn(shape)
    drawn = TensorViews(images, 0).draw(0, 6)
    assert {tuple(row.flatten().tolist()) for row in drawn} == {tuple(row.flatten().tolist()) for row in images}


def test_photos_in_a_tensor_are_cropped_and_keep_their_size():
    images = torch.rand(4, 3, 48, 40)
    views = TensorViews(images, 0)
    drawn = views.draw(0, 8)
    assert drawn.shape == (8, 3, 48, 40) and torch.equal(drawn, TensorViews(images, 0).draw(0, 8))
    assert drawn.min() >= images.min() - 1e-4 and drawn.max() <= images.max() + 1e-4
    assert not any(torch.equal(view, image) for view in drawn for image in images)
