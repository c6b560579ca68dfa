"""Folders of images: every kind of file, every kind of mistake, the same choice everywhere."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewer.core.errors import FewerError
from fewer.data.images import list_images, load_images, split_files
from fewer.data.preprocess import Preprocess
from tests.support.closed import refuse_to_list

RAW = Preprocess((3, 8, 8), mean=0.0, std=1.0, interpolation="bilinear", crop=1.0)
GREY = Preprocess((1, 8, 8), mean=0.0, std=1.0, interpolation="bilinear", crop=1.0)


def colour(index):
    return ((37 * index) % 256, (91 * index) % 256, (53 * index) % 256)


def fill(folder, count, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (12, 10), colour(index)).save(folder / f"{index:03d}{suffix}")
    return folder


def one(path, image, preprocess=RAW, **kwargs):
    """Save one image and read it back as a float array [C, 8, 8] in 0..1."""
    image.save(path, **kwargs)
    return load_images([path], preprocess=preprocess).tensor[0].numpy()


def test_every_format_in_a_tree(tmp_path):
    for index, suffix in enumerate([".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".PNG"]):
        fill(tmp_path / f"class_{index}" / "deep", 1, suffix)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image either")
    images = load_images(tmp_path, preprocess=RAW)
    assert images.tensor.shape == (8, 3, 8, 8) and images.tensor.dtype == torch.float32
    assert len(images.files) == 8 and not images.skipped


def test_normalisation_is_the_textbook_one(tmp_path):
    Image.new("RGB", (300, 260), (255, 0, 128)).save(tmp_path / "a.png")
    pixel = load_images(tmp_path).tensor[0, :, 100, 100]
    expected = (torch.tensor([1.0, 0.0, 128 / 255]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    assert torch.allclose(pixel, expected, atol=1e-6)


def test_the_centre_is_cropped(tmp_path):
    # thirds red, green, blue side by side; the central square of a 3:1 strip is all green
    strip = np.zeros((8, 24, 3), np.uint8)
    for index in range(3):
        strip[:, 8 * index : 8 * index + 8, index] = 255
    for array in (strip, strip.transpose(1, 0, 2)):
        values = one(tmp_path / "a.png", Image.fromarray(array))
        assert np.allclose(values, np.array([0, 1, 0])[:, None, None])


def test_crop_fraction(tmp_path):
    # 16 x 16 with a border of 4: half of the side is the inner part
    array = np.zeros((16, 16), np.uint8)
    array[4:12, 4:12] = 255
    half = Preprocess((3, 8, 8), mean=0.0, std=1.0, interpolation="nearest", crop=0.5)
    assert one(tmp_path / "a.png", Image.fromarray(array), half).min() == 1.0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (1, 500), (3000, 1), (7, 9)])
def test_tiny_and_long_images(tmp_path, height, width):
    array = np.full((height, width, 3), 200, np.uint8)
    assert np.allclose(one(tmp_path / "a.png", Image.fromarray(array)), 200 / 255)


def test_a_non_square_input(tmp_path):
    wide = Preprocess((3, 4, 16), mean=0.0, std=1.0)
    assert one(tmp_path / "a.png", Image.new("RGB", (20, 20), (255, 255, 255)), wide).shape == (3, 4, 16)


@pytest.mark.parametrize(
    ("mode", "value", "expected", "suffix"),
    [
        ("L", 100, (100, 100, 100), ".png"),
        ("1", 1, (255, 255, 255), ".png"),
        ("RGB", (10, 20, 30), (10, 20, 30), ".bmp"),
        ("LA", (100, 255), (100, 100, 100), ".png"),
        ("LA", (100, 0), (255, 255, 255), ".png"),  # transparent: white
        ("RGBA", (10, 20, 30, 255), (10, 20, 30), ".png"),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255), ".webp"),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127), ".png"),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), ".tif"),
        ("YCbCr", (76, 85, 255), (254, 0, 0), ".tif"),
    ],
)
def test_modes(tmp_path, mode, value, expected, suffix):
    values = one(tmp_path / f"a{suffix}", Image.new(mode, (9, 9), value)) * 255
    assert np.abs(values - np.array(expected)[:, None, None]).max() <= 2


def test_cmyk_jpeg(tmp_path):
    values = one(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    assert values[0].min() > 0.95 and values[1:].max() < 0.05


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4)
    assert np.abs(one(tmp_path / "a.png", image) * 255 - np.array([10, 200, 30])[:, None, None]).max() < 2
    index = image.getpixel((0, 0))
    assert one(tmp_path / "b.png", image, transparency=index).min() == 1.0


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, dtype, suffix):
    if dtype is np.int32 and suffix == ".png":
        pytest.skip("PNG holds no 32 bits")
    ramp = np.linspace(0, 65535, 8).astype(dtype)
    for preprocess in (RAW, GREY):
        values = one(tmp_path / f"a{suffix}", Image.fromarray(np.tile(ramp, (8, 1))), preprocess)
        assert values.shape[0] == preprocess.input_size[0]
        assert np.allclose(values, ramp / 65535, atol=1e-4)


def test_big_endian_sixteen_bits(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 8).astype(">u2"), (8, 1))
    image = Image.frombytes("I;16B", (8, 8), ramp.tobytes())
    assert np.allclose(one(tmp_path / "a.tif", image), ramp.astype(float) / 65535, atol=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.9, (0.1, 0.9)),  # already on 0..1
        (0.5, 200.5, (0.5 / 255, 200.5 / 255)),  # on 0..255
        (-3.0, 5.0, (0.0, 1.0)),  # anything else is stretched
        (0.0, 1e6, (0.0, 1.0)),
    ],
)
def test_floating_point_images(tmp_path, low, high, expected):
    ramp = np.tile(np.linspace(low, high, 8).astype(np.float32), (8, 1))
    values = one(tmp_path / "a.tif", Image.fromarray(ramp))
    assert np.allclose([values[0, 0, 0], values[0, 0, -1]], expected, atol=1e-5)


def test_floating_point_nan_is_skipped(tmp_path):
    fill(tmp_path, 1)
    bad = np.full((8, 8), np.nan, np.float32)
    Image.fromarray(bad).save(tmp_path / "bad.tif")
    (skipped,) = load_images(tmp_path, preprocess=RAW).skipped
    assert skipped == (tmp_path / "bad.tif", "the image holds NaN or infinity")


def test_exif_orientation_is_applied(tmp_path):
    array = np.zeros((8, 8, 3), np.uint8)
    array[:4] = 255  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the upper half comes to the right
    values = one(tmp_path / "a.jpg", Image.fromarray(array), exif=exif, quality=100, subsampling=0)
    assert values[:, :, 5:].min() > 0.9 and values[:, :, :3].max() < 0.1


def test_broken_files_among_many_are_skipped_and_named(tmp_path):
    fill(tmp_path, 6, ".jpg")
    data = (tmp_path / "000.jpg").read_bytes()
    (tmp_path / "000.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("this is no image")
    (tmp_path / "empty.bmp").write_bytes(b"")
    png = fill(tmp_path / "sub", 1) / "000.png"
    png.write_bytes(png.read_bytes()[:45])
    images = load_images(tmp_path, preprocess=RAW)
    assert len(images) == 5
    assert {path.name for path, _ in images.skipped} == {"000.jpg", "text.png", "empty.bmp", "000.png"}
    assert all(reason for _, reason in images.skipped)
    assert not torch.isnan(images.tensor).any()
    # a broken file does not cost an image when there are enough others
    for seed in range(5):
        assert len(load_images(tmp_path, count=5, seed=seed, preprocess=RAW)) == 5


def test_nothing_to_read(tmp_path):
    with pytest.raises(FewerError, match="does not exist; did you mean 'photos'"):
        (tmp_path / "photos").mkdir()
        load_images(tmp_path / "photo")
    with pytest.raises(FewerError, match="holds nothing"):
        load_images(tmp_path / "photos")
    (tmp_path / "photos" / "a.heic").write_text("x")
    with pytest.raises(FewerError, match=r"only other files \(1 of \.heic\)"):
        load_images(tmp_path / "photos")
    with pytest.raises(FewerError, match="is a file, not a folder"):
        load_images(tmp_path / "photos" / "a.heic")
    (tmp_path / "photos" / "a.png").write_text("x")
    with pytest.raises(FewerError, match=r"none of the 1 images .* can be read; the first: a\.png"):
        load_images(tmp_path / "photos")
    with pytest.raises(FewerError, match="list of images is empty"):
        load_images([])


@pytest.mark.parametrize("closed", ["", "deeper"])
def test_a_folder_without_permission_is_not_taken_for_an_empty_one(tmp_path, monkeypatch, closed):
    fill(tmp_path / "photos" / "deeper", 2)
    refuse_to_list(monkeypatch, tmp_path / "photos" / closed)
    with pytest.raises(FewerError, match="no permission to read"):
        load_images(tmp_path / "photos")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"count": 0}, "at least 1"),
        ({"crops": -1}, "cannot be negative"),
        ({"part": "train"}, "unknown part 'train'"),
        ({"part": "heldout", "heldout": 1.0}, "between 0 and 1"),
        ({"preprocess": Preprocess((4, 8, 8))}, "the model takes 4"),
        ({"crops": 10_000_000}, "GiB; give a smaller count"),
    ],
)
def test_numbers_that_make_no_sense(tmp_path, kwargs, message):
    fill(tmp_path, 2)
    with pytest.raises(FewerError, match=message):
        load_images(tmp_path, **kwargs)


def test_the_choice_does_not_depend_on_the_order_of_the_file_system(tmp_path, monkeypatch):
    for name in ("b", "a", "c/d"):
        fill(tmp_path / name, 5)
    walk = os.walk

    def backwards(*args, **kwargs):
        for place, folders, names in walk(*args, **kwargs):
            folders.sort(reverse=True)
            yield place, folders, sorted(names, reverse=True)

    expected = load_images(tmp_path, count=6, seed=3, preprocess=RAW, crops=2)
    monkeypatch.setattr(os, "walk", backwards)
    again = load_images(tmp_path, count=6, seed=3, preprocess=RAW, crops=2)
    assert again.files == expected.files and torch.equal(again.tensor, expected.tensor)
    other = load_images(tmp_path, count=6, seed=4, preprocess=RAW, crops=2)
    assert other.files != expected.files


def test_only_chosen_files_are_opened(tmp_path, monkeypatch):
    fill(tmp_path, 30)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *a, **k: opened.append(path) or real(path, *a, **k))
    load_images(tmp_path, count=4, preprocess=RAW)
    assert len(opened) == 4


def test_links_that_lead_back_do_not_loop(tmp_path):
    fill(tmp_path / "real", 2)
    (tmp_path / "real" / "back").symlink_to(tmp_path, target_is_directory=True)
    assert len(list_images(tmp_path)) == 2


def gradient(folder, count):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def test_crops_are_many_distinct_images(tmp_path):
    folder = gradient(tmp_path / "p", 4)
    images = load_images(folder, crops=8, preprocess=RAW)
    assert len(images) == 32 and len(images.files) == 32 and len(set(images.files)) == 4
    assert len({row.numpy().tobytes() for row in images.tensor}) == 32
    assert len(load_images(folder, count=10, crops=8, preprocess=RAW)) == 10
    # the crops of a file do not change when another file goes
    before = {row.numpy().tobytes() for row, f in zip(images.tensor, images.files, strict=True) if f.name == "0.png"}
    (folder / "3.png").unlink()
    after = load_images(folder, crops=8, preprocess=RAW)
    assert before <= {row.numpy().tobytes() for row in after.tensor}


def test_as_many_crops_as_are_needed(tmp_path):
    folder = gradient(tmp_path / "p", 4)
    few = load_images(folder, count=10, crops=None, preprocess=RAW)
    assert len(few) == 10 and len(set(few.files)) == 4
    enough = load_images(folder, count=3, crops=None, preprocess=RAW)
    assert torch.equal(enough.tensor, load_images(folder, count=3, preprocess=RAW).tensor)


def test_every_file_gives_its_share_of_the_crops(tmp_path):
    folder = gradient(tmp_path / "p", 6)
    counts = Counter(load_images(folder, count=8, crops=None, preprocess=RAW).files)
    assert len(counts) == 6 and sorted(counts.values()) == [1, 1, 1, 1, 2, 2]
    # one that cannot be read leaves its share to the others
    sorted(folder.iterdir())[0].write_bytes(b"no image")
    images = load_images(folder, count=8, crops=None, preprocess=RAW)
    assert len(images.skipped) == 1 and len(images) >= 7  # the last file has nobody to leave its share to
    assert len(set(images.files)) == 5


def test_the_split_goes_by_file(tmp_path):
    folder = gradient(tmp_path / "p", 12)
    sides = {}
    for seed in (0, 1, 2):
        for part in ("calibration", "heldout"):
            files = set(load_images(folder, seed=seed, crops=3, part=part, preprocess=RAW).files)
            assert sides.setdefault(part, files) == files  # whatever the seed
    assert not sides["calibration"] & sides["heldout"]
    assert (len(sides["calibration"]), len(sides["heldout"])) == (9, 3)


def test_a_split_leaves_at_least_one_file_on_each_side(tmp_path):
    files = list_images(fill(tmp_path, 2))
    for share in (0.01, 0.99):
        assert len(split_files(files, ["a", "b"], "heldout", share)) == 1
    with pytest.raises(FewerError, match="cannot be split"):
        split_files(files[:1], ["a"], "heldout")


def test_pictures_of_kinds_that_are_not_read_are_named(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "phone.HEIC").write_bytes(b"x")
    (tmp_path / "moving.gif").write_bytes(b"GIF89a")
    (tmp_path / "notes.txt").write_text("of a walk")
    found = load_images(tmp_path)
    assert sorted(path.name for path in found.files) == ["a.png", "b.png"]
    assert [(path.name, reason) for path, reason in found.skipped] == [
        ("moving.gif", "pictures of the kind .gif are not read; save it as PNG or JPEG"),
        ("phone.HEIC", "pictures of the kind .heic are not read; save it as PNG or JPEG"),
    ]


def test_files_of_one_subject_are_on_one_side() -> None:
    files = [Path(f"s{subject}_{number}.png") for subject in range(6) for number in range(4)]
    keys = [file.stem[:2] for file in files]
    sides = [{file.stem[:2] for file in split_files(files, keys, part)} for part in ("calibration", "heldout")]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 6 and len(sides[1]) == 2
    one = [split_files(files, ["same"] * 24, part) for part in ("calibration", "heldout")]
    assert len(one[1]) == 6 and sorted([*one[0], *one[1]]) == sorted(files)  # one name cannot be on two sides


def test_a_large_subject_is_not_held_out_for_a_quarter() -> None:
    files = [Path(f"{i}.png") for i in range(100)]
    for small in range(20):
        keys = [f"rare {small}"] + [f"usual {small}"] * 99
        assert len(split_files(files, keys, "heldout")) == 1
