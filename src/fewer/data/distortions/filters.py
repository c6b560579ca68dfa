"""Small image operations that several families share; pixels are float32 (height, width, 3) in 0..1."""

from __future__ import annotations

import numpy as np

__all__ = ["clip", "from_hsv", "from_ycc", "gaussian", "resize", "spread", "to_hsv", "to_linear", "to_srgb", "to_ycc"]

_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)


def clip(pixels: np.ndarray) -> np.ndarray:
    """Into 0..1 as float32."""
    return np.clip(pixels, 0, 1).astype(np.float32)


def to_linear(pixels: np.ndarray) -> np.ndarray:
    """Light from sRGB values."""
    return np.where(pixels <= 0.04045, pixels / 12.92, ((np.maximum(pixels, 0) + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


def to_srgb(light: np.ndarray) -> np.ndarray:
    """sRGB values from light.

    Examples
    --------
    >>> x = np.linspace(0, 1, 5, dtype=np.float32)
    >>> bool(np.allclose(to_srgb(to_linear(x)), x, atol=1e-5))
    True
    """
    light = np.maximum(light, 0)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


def to_ycc(pixels: np.ndarray) -> np.ndarray:
    """Luma and two differences of colour (JPEG's matrix), the latter around 0."""
    return pixels @ _YCC.T


def from_ycc(values: np.ndarray) -> np.ndarray:
    """Back from :func:`to_ycc`."""
    return values @ np.linalg.inv(_YCC).T.astype(np.float32)


def to_hsv(pixels: np.ndarray) -> np.ndarray:
    """Hue, saturation and value, each 0..1."""
    top, low = pixels.max(2), pixels.min(2)
    span = np.maximum(top - low, 1e-12)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    sector = np.select(
        [top == red, top == green], [(green - blue) / span % 6, (blue - red) / span + 2], (red - green) / span + 4
    )
    hue = np.where(top > low, sector / 6, 0)
    return np.stack([hue, np.where(top > 0, (top - low) / np.maximum(top, 1e-12), 0), top], 2).astype(np.float32)


def from_hsv(values: np.ndarray) -> np.ndarray:
    """Back from :func:`to_hsv`.

    Examples
    --------
    >>> x = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32)
    >>> bool(np.allclose(from_hsv(to_hsv(x)), x, atol=1e-5))
    True
    """
    hue, saturation, value = values[..., 0], values[..., 1], values[..., 2]
    place = (np.array([5.0, 3.0, 1.0]) + hue[..., None] * 6) % 6
    part = np.clip(np.minimum(place, 4 - place), 0, 1)
    return (value[..., None] * (1 - saturation[..., None] * part)).astype(np.float32)


def spread(pixels: np.ndarray, offsets: list[tuple[int, int]], weights: np.ndarray) -> np.ndarray:
    """Weighted mean of shifted copies, with mirrored borders: a convolution with a sparse kernel."""
    reach = max(1, max(max(abs(y), abs(x)) for y, x in offsets))
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, [(reach, reach), (reach, reach), (0, 0)], "symmetric")
    total = np.zeros_like(pixels)
    for (y, x), weight in zip(offsets, weights / weights.sum(), strict=True):
        total += np.float32(weight) * padded[reach + y : reach + y + height, reach + x : reach + x + width]
    return total


def gaussian(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Blur by a Gaussian of ``sigma`` pixels, rows and columns in turn; any number of channels.

    Examples
    --------
    >>> bool(np.allclose(gaussian(np.ones((5, 5, 3), np.float32), 2.0), 1))
    True
    """
    reach = max(1, int(np.ceil(3 * sigma)))
    at = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (at / sigma) ** 2)
    rows = spread(pixels, [(int(y), 0) for y in at], weights)
    return spread(rows, [(0, int(x)) for x in at], weights)


def resize(pixels: np.ndarray, width: int, height: int, how: str = "bicubic") -> np.ndarray:
    """To another size through Pillow, channel by channel in floats."""
    from PIL import Image

    method = Image.Resampling[how.upper()]
    planes = [
        np.asarray(Image.fromarray(pixels[..., c]).resize((width, height), method)) for c in range(pixels.shape[2])
    ]
    return np.stack(planes, 2)
