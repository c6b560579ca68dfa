"""Masks as pictures: whatever way they were saved, the person is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.gait.data.dataset import open_data, read_sequence
from fewer.tasks.gait.data.loose import open_sequences
from fewer.tasks.gait.data.pictures import as_mask, in_order, read_mask, read_masks
from fewer.tasks.gait.embed import embed
from fewer.tasks.gait.networks import build_network

SHAPE = np.zeros((120, 90), bool)
SHAPE[10:110, 30:60] = True
SHAPE[60:110, 40:48] = False


def palette(entries: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(entries, "P")
    image.putpalette(colours + [0] * (768 - len(colours)))
    return image


def kinds() -> dict[str, Image.Image]:
    ones = SHAPE.astype(np.uint8)
    full = ones * np.uint8(255)
    clear, opaque = np.zeros((*SHAPE.shape, 4), np.uint8), np.full((*SHAPE.shape, 4), 255, np.uint8)
    clear[SHAPE] = 255
    black = clear.copy()
    black[..., :3] = 0
    opaque[..., :3] = full[..., None]
    return {
        "ones.png": Image.fromarray(ones),
        "full.png": Image.fromarray(full),
        "bits.png": Image.fromarray(SHAPE),
        "wide.png": Image.fromarray(ones.astype(np.uint16) * 65535),
        "labels.tiff": Image.fromarray(ones.astype(np.int32)),
        "colours.png": Image.fromarray(np.repeat(full[..., None], 3, 2)),
        "clear.png": Image.fromarray(clear),
        "black.png": Image.fromarray(black),
        "opaque.png": Image.fromarray(opaque),
        "voc.png": palette(ones, [0, 0, 0, 128, 0, 0]),
        "unnamed.png": palette(ones, [0, 0, 0, 0, 0, 0]),
        "swapped.png": palette(1 - ones, [255, 255, 255, 0, 0, 0]),
        "lossy.jpg": Image.fromarray(full),
        "float.tiff": Image.fromarray(ones.astype(np.float32)),
        "old.bmp": Image.fromarray(full),
        "red.bmp": Image.fromarray(full[..., None] * np.array([1, 0, 0], np.uint8)),
        "dark-blue.png": Image.fromarray(ones[..., None] * np.array([0, 0, 90], np.uint8)),
        "label.png": Image.fromarray(ones * np.uint8(15)),
    }


@pytest.mark.parametrize("name", kinds())
def test_every_way_to_save_a_mask(name: str, tmp_path: Path) -> None:
    kinds()[name].save(tmp_path / name)
    found = read_mask(tmp_path / name)
    assert found.dtype == np.uint8 and set(np.unique(found)) == {0, 255}
    assert (found > 0)[SHAPE].all() if name != "lossy.jpg" else ((found > 0) == SHAPE).mean() > 0.99
    assert name == "lossy.jpg" or np.array_equal(found > 0, SHAPE)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_photo_is_no_mask_and_one_grey_level_is(ending: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(128, 40, (60, 44, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{ending}")
    with pytest.raises(FewerError, match="is a photo, not a mask"):
        read_mask(tmp_path / f"a.{ending}")
    full = np.full((60, 44), 130, np.uint8)  # a crop that the person fills
    full[:2] = 0
    Image.fromarray(full).save(tmp_path / f"b.{ending}")
    assert (read_mask(tmp_path / f"b.{ending}") > 0).mean() > 0.9


def test_what_jpeg_leaves_of_black_is_no_person(tmp_path: Path) -> None:
    Image.fromarray(SHAPE.astype(np.uint8)).save(tmp_path / "a.jpg")
    assert not read_mask(tmp_path / "a.jpg").any()
    bright = np.zeros((*SHAPE.shape, 3), np.uint8)
    bright[SHAPE] = (200, 30, 90)  # edges of many colours, as JPEG makes them
    Image.fromarray(bright).save(tmp_path / "b.jpg")
    assert ((read_mask(tmp_path / "b.jpg") > 0) == SHAPE).mean() > 0.98


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(8, 13):
        moved = np.roll(SHAPE, number, 0) & (np.arange(120) > 20)[:, None]
        moved[: 2 * number] = False
        Image.fromarray(moved).save(tmp_path / f"frame{number}.png")
    found = read_sequence(tmp_path)
    alone = [open_sequences(tmp_path).frames(walk) for walk in open_sequences(tmp_path).walks]
    assert len(found) == 5 and np.array_equal(alone[0], found)
    assert sorted(["a10", "a9", "b1"], key=in_order) == ["a9", "a10", "b1"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((3, 64, 64), np.nan), "not finite"),
        (np.full((3, 64, 64), "x"), "not numbers"),
        (np.zeros((3, 64, 64), complex), "not numbers"),
        (np.zeros((3, 0, 64), np.uint8), "without a pixel"),
        (np.zeros((3, 64, 64, 3), np.uint8), "not silhouettes"),
        (np.zeros((3, 128, 128), np.uint8), "no person"),
    ],
)
def test_arrays_that_are_no_masks(values: np.ndarray, told: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", silhouettes=values)
    with pytest.raises(FewerError, match=told) as error:
        read_sequence(tmp_path / "a.npz")
    assert "\n" not in str(error.value) and "a.npz" in str(error.value)


def test_a_line_is_no_person_and_takes_no_memory(tmp_path: Path) -> None:
    line = np.zeros((2, 40, 30_000), np.uint8)
    line[:, 20] = 255
    np.savez_compressed(tmp_path / "a.npz", silhouettes=line)
    with pytest.raises(FewerError, match="no person"):
        read_sequence(tmp_path / "a.npz")


def test_pictures_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a/nm-01/090"
    place.mkdir(parents=True)
    (place / "1.png").write_bytes(b"no picture")
    with pytest.raises(FewerError, match=r"1\.png"):
        open_data(tmp_path).frames(open_data(tmp_path).walks[0])
    Image.fromarray(SHAPE).save(place / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # a file of some bytes that unpacks to gigabytes
    with pytest.raises(FewerError, match="save the mask again"):
        open_data(tmp_path).frames(open_data(tmp_path).walks[0])


def test_names_of_views_are_text_and_no_formulas() -> None:
    from fewer.tasks.gait.pictures import heat_map
    from fewer.tasks.gait.protocols.scores import ViewTable

    table = ViewTable("nm", ("$\\frac$", "b"), ("$\\frac$", "b"), np.array([[np.nan, 0.5], [1.0, np.nan]]))
    assert len(heat_map(table).png) > 100


@pytest.mark.parametrize(
    ("dtype", "shadow", "person"), [(np.uint16, 12_850, 65_535), (np.uint8, 1, 255), (np.uint8, 1, 2)]
)
def test_a_shadow_alone_is_no_person_in_any_kind_of_numbers(
    dtype: type, shadow: int, person: int, tmp_path: Path
) -> None:
    """A frame with the shadow alone was stretched by its own greatest number, and became a person."""
    alone, whole = np.where(SHAPE, shadow, 0), np.where(SHAPE, person, 0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, frame in zip(paths, (alone, whole, alone), strict=True):
        Image.fromarray(frame.astype(dtype)).save(path)
    assert [int((frame > 127).sum()) for frame in read_masks(paths)] == [0, int(SHAPE.sum()), 0]


def test_of_several_arrays_the_one_of_frames_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", rate=np.array(25), masks=np.where(SHAPE, 255, 0).astype(np.uint8)[None])
    assert len(read_sequence(tmp_path / "a.npz")) == 1


def test_a_dark_number_is_a_person_only_where_no_frame_holds_a_brighter_one(tmp_path) -> None:
    """A frame that held a shadow alone became a person, in a sequence in which shadows are 50 and persons 255."""
    shadow = np.where(SHAPE, 50, 0).astype(np.uint8)
    whole = np.where(SHAPE, 255, 0).astype(np.uint8)
    whole[-1, -1] = 50
    paths = []
    for number, frame in enumerate((shadow, whole, shadow)):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(frame).save(paths[-1])
    seen = list(read_masks(paths))
    assert [int((frame > 127).sum()) for frame in seen] == [0, int(SHAPE.sum() - SHAPE[-1, -1]), 0]
    assert [(frame > 127).any() for frame in read_masks(paths[:1])] == [True]


def test_numbers_of_every_kind_are_one_mask() -> None:
    person = np.zeros((64, 44), bool)
    person[2:62, 14:30] = True
    wanted = np.where(person, 255, 0)
    for values in (person * 15, person * 15.0, person.astype(np.int16), person * np.float16(1), person * 65535):
        assert (as_mask(np.asarray(values)) == wanted).all(), values.dtype
    resampled = np.where(person, 1.06, -0.06)  # cubic kernels leave the range that they are given
    assert (as_mask(resampled) == wanted).all()
    for values in (np.where(person, 1.0, -1.0), np.where(person, -1, 0).astype(np.int8)):
        with pytest.raises(FewerError, match="below zero"):
            as_mask(values)


def test_frames_may_be_pictures_tensors_or_lists() -> None:
    frames = np.zeros((4, 64, 44), np.uint8)
    frames[:, 2:62, 14:30] = 255
    network = build_network({"size": "tiny"}).eval()
    wanted = embed(network, frames)
    for same in (
        list(frames),
        [Image.fromarray(f) for f in frames],
        [torch.from_numpy(f) for f in frames],
        frames.tolist(),
    ):
        assert (embed(network, same) == wanted).all()
    with pytest.raises(FewerError, match="no frame"):
        embed(network, [])
