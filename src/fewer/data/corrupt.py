"""Corrupt an image as self-supervised restoration does (Models Genesis; Zhou et al., 2019), with SAAL's settings.

This is what a selection sees: photos, at SAAL's working size, without further packages. A warm-up corrupts tensors in
2-D and 3-D instead (:mod:`fewer.tasks.segment.corrupt`), with the same curves and the same probabilities."""

from __future__ import annotations

from math import comb

import numpy as np
from PIL import Image

__all__ = ["CURVE", "OUTWARD", "PAINT", "SHUFFLE", "bezier_curve", "corrupted"]

SHUFFLE, CURVE, PAINT, OUTWARD = 0.5, 0.9, 0.9, 0.8
"""Probabilities of local shuffling, of the intensity map, of painting, and of out-painting among paintings."""
_SIDE = 256  # pixels; SAAL's working size, and larger images would only cost time


def corrupted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Flip, shuffle pixels locally, remap intensities, and paint over parts of an image.

    With the probabilities of SAAL's released code: flips 0.4; local pixel shuffling 0.5; a Bezier curve over the
    intensities 0.9, half of them monotone; painting 0.9, of which 0.8 keep a window of 3/7 to 4/7 of each side and
    fill the rest with noise, and 0.2 put up to five boxes of noise of 1/6 to 1/3 of each side in.

    Parameters
    ----------
    image
        Of mode ``L``, ``RGB`` or ``F`` (0..255); the longer side is at most 256 pixels afterwards.
    rng
        Seeded by the caller.

    Returns
    -------
    PIL.Image.Image
        Of mode ``L`` or ``RGB``.

    Examples
    --------
    >>> corrupted(Image.new("L", (32, 16)), np.random.default_rng(0)).size
    (32, 16)
    """
    image = image.convert("L") if image.mode == "F" else image.copy()
    image.thumbnail((_SIDE, _SIDE))
    pixels = np.asarray(image, np.float32) / 255
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels.copy()
    for axis in (0, 1):
        if rng.random() < 0.4:
            pixels = np.flip(pixels, axis)
    pixels = np.ascontiguousarray(pixels)
    if rng.random() < SHUFFLE:
        _shuffle(pixels, rng)
    if rng.random() < CURVE:
        at, value = bezier_curve(rng, monotone=rng.random() < 0.5)
        pixels = np.interp(pixels, at, value).astype(np.float32)
    if rng.random() < PAINT:
        pixels = _outpaint(pixels, rng) if rng.random() < OUTWARD else _inpaint(pixels, rng)
    return Image.fromarray(np.rint(np.squeeze(pixels, -1) * 255 if pixels.shape[2] == 1 else pixels * 255).astype("u1"))


def bezier_curve(rng: np.random.Generator, *, monotone: bool) -> tuple[np.ndarray, np.ndarray]:
    """A cubic Bezier curve from (0, 0) to (1, 1), or the other way up, through two random control points.

    Returns
    -------
    at, value
        256 points each, ``at`` rising; a monotone curve has rising values.

    Examples
    --------
    >>> at, value = bezier_curve(np.random.default_rng(0), monotone=True)
    >>> bool((np.diff(at) >= 0).all() and (np.diff(value) >= 0).all())
    True
    """
    points = np.vstack([[0.0, 0.0], rng.random((2, 2)), [1.0, 1.0]])
    if not monotone and rng.random() < 0.5:
        points[[0, 3], 1] = 1.0, 0.0
    t = np.linspace(0, 1, 256)
    weights = np.stack([comb(3, k) * t**k * (1 - t) ** (3 - k) for k in range(4)], 1)
    at, value = (weights @ points).T
    return np.sort(at), np.sort(value) if monotone else value


def _shuffle(pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Permute the pixels inside 10,000 small windows, in place."""
    height, width, channels = pixels.shape
    windows = 10_000
    high, wide = (rng.integers(1, max(2, side // 10 + 1), windows) for side in (height, width))
    top, left = (rng.random(windows) * (height - high)).astype(int), (rng.random(windows) * (width - wide)).astype(int)
    for y, x, h, w in zip(top, left, high, wide, strict=True):
        if h * w > 1:
            window = pixels[y : y + h, x : x + w]
            window[:] = rng.permutation(window.reshape(-1, channels)).reshape(window.shape)


def _outpaint(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.random(pixels.shape, np.float32)
    y, x, h, w = _window(pixels.shape, rng, 3 / 7, 4 / 7)
    noise[y : y + h, x : x + w] = pixels[y : y + h, x : x + w]
    return noise


def _inpaint(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for _ in range(5):
        y, x, h, w = _window(pixels.shape, rng, 1 / 6, 1 / 3)
        pixels[y : y + h, x : x + w] = rng.random((h, w, pixels.shape[2]), np.float32)
        if rng.random() > 0.95:
            break
    return pixels


def _window(shape: tuple[int, ...], rng: np.random.Generator, low: float, high: float) -> tuple[int, int, int, int]:
    h, w = (max(1, int(rng.uniform(low, high) * side)) for side in shape[:2])
    return int(rng.integers(0, shape[0] - h + 1)), int(rng.integers(0, shape[1] - w + 1)), h, w
