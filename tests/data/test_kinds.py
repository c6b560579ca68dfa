"""Every kind of picture is read alike by all verbs: upright, without transparency, the first of several."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, UnidentifiedImageError

from fewer.core.errors import FewerError
from fewer.data.decode import read_image
from fewer.selection.export import can_open
from fewer.tasks.segment.files import read_picture

SHOWN = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
# what a viewer does to show each orientation, undone: how the pixels are stored
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def _both(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The picture as most verbs and as the segmentation read it, (height, width) or (height, width, 3)."""
    first, second = np.asarray(read_image(path)), np.moveaxis(read_picture(path).array, 0, -1)
    return first, second[..., 0] if second.shape[-1] == 1 else second


@pytest.mark.parametrize("kind", ["png", "tif", "webp"])
@pytest.mark.parametrize("tag", STORED)
def test_every_orientation_is_shown_upright(tmp_path: Path, tag: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / f"a.{kind}"
    more = {"webp": {"lossless": True, "quality": 100}, "tif": {"compression": "tiff_lzw"}}.get(kind, {})
    Image.fromarray(np.ascontiguousarray(STORED[tag](SHOWN))).save(path, exif=exif, **more)
    for seen in _both(path):
        np.testing.assert_array_equal(seen, SHOWN)


@pytest.mark.parametrize("tag", STORED)
def test_a_mask_is_turned_like_its_image(tmp_path: Path, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = np.ascontiguousarray(STORED[tag](SHOWN))
    Image.fromarray(stored[..., 0]).save(tmp_path / "m.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "m.png", mask=True).array[0], SHOWN[..., 0])


def _kinds() -> dict[str, Image.Image]:
    colours = Image.fromarray(SHOWN)
    alpha = Image.fromarray(np.linspace(0, 255, 24).astype(np.uint8).reshape(4, 6))
    see_through = colours.copy()
    see_through.putalpha(alpha)
    grey = colours.convert("L")
    palette = colours.quantize(8)
    clear = colours.quantize(8)
    clear.info["transparency"] = 0
    return {
        "colours": colours,
        "grey": grey,
        "alpha": see_through,
        "grey with alpha": Image.merge("LA", (grey, alpha)),
        "palette": palette,
        "palette with transparency": clear,
    }


@pytest.mark.parametrize("what", _kinds())
def test_every_kind_is_the_same_in_both_readers(tmp_path: Path, what: str) -> None:
    _kinds()[what].save(tmp_path / "a.png")
    first, second = _both(tmp_path / "a.png")
    np.testing.assert_array_equal(first, second)


def test_cmyk_and_one_bit(tmp_path: Path) -> None:
    Image.fromarray(SHOWN).convert("CMYK").save(tmp_path / "a.jpg")
    first, second = _both(tmp_path / "a.jpg")
    np.testing.assert_array_equal(first, second)
    Image.fromarray(SHOWN[..., 0] > 60).save(tmp_path / "a.png")
    first, second = _both(tmp_path / "a.png")
    np.testing.assert_array_equal(first > 0, second > 0)


@pytest.mark.parametrize("big", [False, True])
def test_sixteen_bits_keep_their_order(tmp_path: Path, big: bool) -> None:
    values = (np.arange(24).reshape(4, 6) * 2700).astype(">u2" if big else "<u2")
    Image.fromarray(values.astype("<u2")).save(tmp_path / "a.png")
    first, second = _both(tmp_path / "a.png")
    np.testing.assert_allclose(first, values / 257.0, rtol=1e-5)
    np.testing.assert_array_equal(second, values)


@pytest.mark.parametrize("kind", ["png", "webp", "mpo"])
def test_of_several_pictures_the_first_is_read(tmp_path: Path, kind: str) -> None:
    pages = [Image.fromarray(SHOWN), Image.fromarray(255 - SHOWN)]
    path = tmp_path / ("a.jpg" if kind == "mpo" else f"a.{kind}")
    more = {"webp": {"lossless": True}, "mpo": {"format": "MPO", "quality": 100}}.get(kind, {})
    pages[0].save(path, save_all=True, append_images=pages[1:], **more)
    for seen in _both(path):
        assert np.abs(seen.astype(int) - SHOWN).max() <= (16 if kind == "mpo" else 0)


def test_a_palette_of_a_mask_keeps_its_numbers(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    mask.save(tmp_path / "m.png")
    assert read_picture(tmp_path / "m.png", mask=True).array.tolist() == [[[0, 1, 2]]]
    assert read_picture(tmp_path / "m.png").array.shape == (3, 1, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]),
    st.sampled_from(["png", "tif", "jpg", "webp", "bmp"]),
    st.integers(1, 8),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 1000),
)
def test_both_readers_see_one_shape(tmp_path_factory, mode, kind, tag, size, seed) -> None:
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path_factory.mktemp("kinds") / f"a.{kind}"
    try:
        image.save(path, exif=exif)
    except (OSError, ValueError, TypeError):  # not every kind of file holds every mode
        return
    first, second = _both(path)
    assert first.shape == second.shape
    assert first.shape[:2] == np.asarray(ImageOps.exif_transpose(Image.open(path))).shape[:2]


@pytest.mark.parametrize("name", ["pipe.png", "zeros.png"])
def test_a_pipe_or_a_device_among_the_pictures_is_never_waited_for(tmp_path, name) -> None:
    import os

    from fewer.core.errors import FewerError
    from fewer.data.decode import check_header

    if name == "pipe.png":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    for read in (read_image, read_picture, check_header):
        with pytest.raises(FewerError, match="no ordinary file"):
            read(tmp_path / name)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def test_no_program_is_started_to_read_a_picture(tmp_path: Path) -> None:
    """Pillow would let Ghostscript run what a PostScript file says, whatever its ending is."""
    path = tmp_path / "a.png"
    path.write_bytes(POSTSCRIPT)
    started: list[str] = []
    watching = True
    sys.addaudithook(lambda event, _: started.append(event) if watching and event == "subprocess.Popen" else None)
    with pytest.raises(UnidentifiedImageError):
        read_image(path)
    with pytest.raises(FewerError, match="cannot identify"):
        read_picture(path)
    assert not can_open(path) and not started
    watching = False


@pytest.mark.parametrize("kind", ["GIF", "JPEG2000", "WEBP", "TIFF"])
def test_a_picture_with_another_ending_is_read(tmp_path: Path, kind: str) -> None:
    Image.fromarray(SHOWN).save(tmp_path / "a.jpg", kind)
    first, second = _both(tmp_path / "a.jpg")
    assert first.shape == second.shape == SHOWN.shape


def test_pages_of_a_volume_are_counted_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Image.new("L", (500, 400))
    page.save(tmp_path / "a.tif", compression="tiff_deflate", save_all=True, append_images=[page] * 19)
    monkeypatch.setattr("fewer.data.decode.data_limit", lambda: 8 * 500 * 400 * 10)
    with pytest.raises(FewerError, match=r"a\.tif, unpacked, has 32\.0 MB"):
        read_picture(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").size == (500, 400)  # the first page alone
    monkeypatch.setattr("fewer.data.decode.data_limit", lambda: 8 * 500 * 400 - 1)
    with pytest.raises(FewerError, match="unpacked"):
        read_image(tmp_path / "a.tif")
