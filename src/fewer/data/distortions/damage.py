"""Processing, compression and transmission: sharpening, jitter, moved patches, blocks, pixelation, JPEG, JPEG 2000."""

from __future__ import annotations

import io

import numpy as np

from fewer.core.errors import FewerError
from fewer.data.distortions.filters import clip, gaussian, resize

__all__ = ["colour_blocks", "jitter", "jpeg", "jpeg2000", "oversharpen", "patches", "pixelate"]


def oversharpen(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Unsharp masking by far too much: halos along edges."""
    return clip(pixels + (1.5, 3, 5, 8, 12)[severity - 1] * (pixels - gaussian(pixels, 1.5)))


def jitter(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Each pixel comes from a place nearby."""
    reach = (1, 2, 3, 4, 6)[severity - 1]
    height, width = pixels.shape[:2]
    y = np.clip(np.arange(height)[:, None] + rng.integers(-reach, reach + 1, (height, width)), 0, height - 1)
    x = np.clip(np.arange(width)[None] + rng.integers(-reach, reach + 1, (height, width)), 0, width - 1)
    return pixels[y, x]


def patches(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Small patches stand a little beside their place (non-eccentricity patches)."""
    height, width = pixels.shape[:2]
    side, out = max(4, min(height, width) // 14), pixels.copy()
    for _ in range((8, 16, 28, 44, 70)[severity - 1]):
        top, left = rng.integers(0, max(1, height - side)), rng.integers(0, max(1, width - side))
        up = np.clip(top + rng.integers(-side, side + 1), 0, max(0, height - side))
        aside = np.clip(left + rng.integers(-side, side + 1), 0, max(0, width - side))
        part = pixels[up : up + side, aside : aside + side]
        out[top : top + part.shape[0], left : left + part.shape[1]] = part[: height - top, : width - left]
    return out


def colour_blocks(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Squares of one random colour, as of lost packets."""
    height, width = pixels.shape[:2]
    side, out = max(4, min(height, width) // 12), pixels.copy()
    for _ in range((2, 4, 7, 11, 16)[severity - 1]):
        top, left = rng.integers(0, max(1, height - side)), rng.integers(0, max(1, width - side))
        out[top : top + side, left : left + side] = rng.random(3)
    return out


def pixelate(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Made small and large again without smoothing."""
    height, width = pixels.shape[:2]
    factor = (1.6, 2.4, 3.6, 5.5, 8.5)[severity - 1]
    small = resize(pixels, max(1, round(width / factor)), max(1, round(height / factor)), "box")
    return clip(resize(small, width, height, "nearest"))


def jpeg(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Through a JPEG file."""
    return _through(pixels, "JPEG", quality=(35, 20, 12, 7, 4)[severity - 1])


def jpeg2000(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Through a JPEG 2000 file.

    Raises
    ------
    FewerError
        Where Pillow was built without it.
    """
    from PIL import features

    if not features.check("jpg_2000"):
        raise FewerError("Pillow here cannot write JPEG 2000; leave the family jpeg2000 out")
    ratio = (40, 70, 120, 200, 350)[severity - 1]
    return _through(pixels, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True)


def _through(pixels: np.ndarray, form: str, **options: object) -> np.ndarray:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.rint(clip(pixels) * 255).astype(np.uint8)).save(buffer, form, **options)
    with Image.open(io.BytesIO(buffer.getvalue())) as image:
        return np.asarray(image.convert("RGB"), np.float32) / 255
