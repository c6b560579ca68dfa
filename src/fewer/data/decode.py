"""One image file, of whatever kind, becomes one normalised array."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fewer.core.errors import FewerError
from fewer.core.reading import check_ordinary, check_size, data_limit
from fewer.data.preprocess import Preprocess

Box = tuple[float, float, float, float]
# beyond this ratio of sides the middle is cut out first; resizing the whole would make a gigantic strip
_LONGEST_ASPECT = 4


FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "PPM", "WEBP", "JPEG2000", "AVIF", "TGA")
"""What a file may be, whatever its ending says. Pillow knows more, and starts Ghostscript to read PostScript."""

_PIXEL_BYTES = 8
"""What a picture takes for each pixel while it is read and scaled, at least."""


def open_image(source: str | Path | BytesIO, *, pages: bool = False) -> Image.Image:
    """Open an image file, which decodes nothing yet: one of the kinds that are read, and not larger than memory allows.

    Parameters
    ----------
    source
        A file, or bytes in memory.
    pages
        Whether all pages of a TIFF will be read, and not only the first.

    Raises
    ------
    Exception
        Whatever Pillow raises for a file that is no such image.
    FewerError
        For a pipe or a device, and for a picture that would take too much memory.

    Examples
    --------
    >>> buffer = BytesIO()
    >>> Image.new("L", (2, 1)).save(buffer, "PNG")
    >>> open_image(buffer).size
    (2, 1)
    """
    if isinstance(source, (str, Path)):
        check_ordinary(source)
    image = Image.open(source, formats=_formats())
    try:
        size = image.width * image.height * _PIXEL_BYTES * (getattr(image, "n_frames", 1) if pages else 1)
        check_size(size, data_limit(), f"{source}, unpacked," if isinstance(source, (str, Path)) else "a picture")
    except BaseException:
        image.close()
        raise
    return image


@cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read_image(path: str | Path | BytesIO) -> Image.Image:
    """Decode an image file upright into mode ``L`` or ``RGB`` (8 bits) or ``F`` (grey, 0..255).

    Orientation from EXIF is applied. Transparency is laid on white. Sixteen bits per channel are scaled by
    their range (65535), never clipped; 32-bit integer and floating-point grey is taken as 0..65535, as 0..1 or as
    0..255 where all values fit in (in this order: integers the first, floats the others), else stretched from its
    own minimum to its maximum. Of several frames the first one is read.

    Parameters
    ----------
    path : path or bytes in memory
        JPEG, PNG, BMP, TIFF, WebP or whatever else Pillow reads.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    Exception
        Whatever Pillow raises for a broken file; :func:`fewer.data.images.load_images` turns it into a reason.
    """
    with open_image(path) as opened:
        return plain(opened)


def plain(image: Image.Image) -> Image.Image:
    """An open image as :func:`read_image` gives it, in mode ``L``, ``RGB`` or ``F``.

    Examples
    --------
    >>> plain(Image.new("RGBA", (2, 1))).mode
    'RGB'
    """
    image = upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey(np.asarray(image)))
    if image.mode == "1":
        return image.convert("L")
    image = without_alpha(image)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """The first or present picture of an open file, decoded and turned as its EXIF orientation says it is shown.

    Examples
    --------
    >>> upright(Image.new("L", (2, 1))).size
    (2, 1)
    """
    image.load()
    return ImageOps.exif_transpose(image)


def without_alpha(image: Image.Image) -> Image.Image:
    """An image whose transparent parts show white; a palette becomes colours. Others stay as they are.

    Examples
    --------
    >>> without_alpha(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
    255
    """
    if image.mode in ("LA", "La"):
        image = image.convert("LA")
        return Image.composite(image.getchannel(0), Image.new("L", image.size, 255), image.getchannel(1))
    if image.mode in ("PA", "RGBA", "RGBa") or ("transparency" in image.info and not image.mode.startswith("I")):
        grey = image.mode in ("1", "L")
        image = image.convert("RGBA")
        laid = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return laid.getchannel(0) if grey else laid
    return image.convert("RGB") if image.mode == "P" else image


def check_header(path: str | Path) -> None:
    """Read the head of an image file alone: what kind it is and how large.

    Raises
    ------
    Exception
        Whatever Pillow raises for a file that is no image.
    """
    with open_image(path):
        pass


def _grey(values: np.ndarray) -> np.ndarray:
    """Grey values of more than 8 bits on the scale 0..255."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return values.astype(np.float32) * (255 / 65535)
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the image holds NaN or infinity")
    low, high = float(values.min()), float(values.max())
    is_integer = bool((values == np.rint(values)).all())
    if low >= 0 and not is_integer and high <= 1:
        return (values * 255).astype(np.float32)
    if low >= 0 and high <= (65535 if is_integer else 255):
        return (values * (255 / 65535 if is_integer else 1)).astype(np.float32)
    return ((values - low) * (255 / max(high - low, 1e-12))).astype(np.float32)


def to_array(image: Image.Image, preprocess: Preprocess, box: Box | None = None) -> np.ndarray:
    """Resize, crop and normalise a decoded image.

    Parameters
    ----------
    image : PIL.Image.Image
        Of mode ``L``, ``RGB`` or ``F`` (0..255), of any size.
    preprocess : Preprocess
        Size, filter, crop, mean and deviation.
    box : (left, upper, right, lower), optional
        Cut this out instead of resizing the shorter side and cropping the centre.

    Returns
    -------
    array of float32 [C, H, W]

    Raises
    ------
    FewerError
        When the model takes neither 1 nor 3 channels.

    Examples
    --------
    >>> to_array(Image.new("RGB", (1, 1), "white"), Preprocess(input_size=(1, 4, 4), mean=0.5, std=0.5)).shape
    (1, 4, 4)
    """
    channels, height, width = preprocess.input_size
    if channels not in (1, 3):
        raise FewerError(
            f"image files give 1 or 3 channels, the model takes {channels}; pass a tensor instead of a folder"
        )
    if channels == 1 and image.mode == "RGB":
        image = image.convert("L")
    resample = Image.Resampling[preprocess.interpolation.upper()]
    if box is not None:
        image = image.resize((width, height), resample, box=box)
    else:
        image = _centre(_shorten(image), height, width, preprocess.crop, resample)
    if channels == 3 and image.mode == "L":
        image = image.convert("RGB")
    values = np.asarray(image, dtype=np.float32) / 255
    planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    mean = np.asarray(preprocess.mean, np.float32)[:, None, None]
    std = np.asarray(preprocess.std, np.float32)[:, None, None]
    return np.ascontiguousarray((planes - mean) / std, dtype=np.float32)


def _shorten(image: Image.Image) -> Image.Image:
    """Cut the middle out of an extremely long image."""
    longest = _LONGEST_ASPECT * min(image.size)
    width, height = min(image.width, longest), min(image.height, longest)
    left, upper = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, upper, left + width, upper + height))


def _centre(image: Image.Image, height: int, width: int, crop: float, resample: Image.Resampling) -> Image.Image:
    scale = max(height / crop / image.height, width / crop / image.width)
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, upper = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return image.resize(size, resample).crop((left, upper, left + width, upper + height))


def random_box(size: tuple[int, int], shape: tuple[int, int], rng: np.random.Generator) -> Box:
    """A random box with the aspect of the model's input that covers 20 to 100 % of what fits.

    Parameters
    ----------
    size : (width, height)
        Of the image in pixels.
    shape : (height, width)
        Of the model's input.
    rng : numpy.random.Generator
        Seeded by the caller.

    Examples
    --------
    >>> left, upper, right, lower = random_box((100, 50), (224, 224), np.random.default_rng(0))
    >>> 0 <= left < right <= 100 and 0 <= upper < lower <= 50
    True
    """
    aspect = shape[1] / shape[0]
    side = float(np.sqrt(rng.uniform(0.2, 1.0)))
    width = min(size[0], size[1] * aspect) * side
    height = width / aspect
    left = float(rng.uniform(0, size[0] - width))
    upper = float(rng.uniform(0, size[1] - height))
    return left, upper, min(left + width, size[0]), min(upper + height, size[1])
