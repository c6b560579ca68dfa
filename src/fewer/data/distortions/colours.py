"""Colour: bleeding, casts, saturation and too few values."""

from __future__ import annotations

import numpy as np

from fewer.data.distortions.filters import clip, from_hsv, from_ycc, gaussian, to_hsv, to_ycc

__all__ = ["colour_diffusion", "colour_quantisation", "colour_shift", "desaturate", "oversaturate", "quantisation"]


def colour_diffusion(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Colours run over edges while brightness stays sharp."""
    values = to_ycc(pixels)
    values[..., 1:] = 1.15 * gaussian(values[..., 1:], (2, 4, 7, 11, 16)[severity - 1])
    return clip(from_ycc(values))


def colour_shift(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A cast: one channel weaker, another one stronger."""
    amount = (0.06, 0.12, 0.19, 0.28, 0.4)[severity - 1]
    gain = 1 + amount * rng.permutation(np.array([1.0, 0.0, -1.0]))
    return clip(pixels * gain)


def colour_quantisation(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A palette of few colours, chosen for the image."""
    from PIL import Image

    count = (64, 32, 16, 9, 5)[severity - 1]
    image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    few = image.quantize(count, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    return np.asarray(few, np.float32) / 255


def desaturate(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Faded: the saturation of HSV is made smaller."""
    values = to_hsv(pixels)
    values[..., 1] *= (0.7, 0.5, 0.33, 0.18, 0.05)[severity - 1]
    return clip(from_hsv(values))


def oversaturate(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Garish: the differences of colour are made larger (in YCbCr here, in Lab in KADID-10k)."""
    values = to_ycc(pixels)
    values[..., 1:] *= (1.4, 1.8, 2.4, 3.2, 4.5)[severity - 1]
    return clip(from_ycc(values))


def quantisation(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Few brightness values per channel: bands in skies."""
    steps = (20, 13, 8, 5, 3)[severity - 1] - 1
    return clip(np.rint(pixels * steps) / steps)
