"""Light and lens: exposure, focus and motion."""

from __future__ import annotations

import numpy as np

from fewer.data.distortions.filters import clip, gaussian, spread, to_linear, to_srgb

__all__ = ["brighten", "contrast", "darken", "gaussian_blur", "lens_blur", "mean_shift", "motion_blur"]


def brighten(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Too much light, in stops: bright parts are lost."""
    return clip(to_srgb(to_linear(pixels) * 2 ** (0.5, 0.9, 1.3, 1.8, 2.4)[severity - 1]))


def darken(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Too little light, in stops."""
    return clip(to_srgb(to_linear(pixels) / 2 ** (0.9, 1.6, 2.4, 3.2, 4.2)[severity - 1]))


def mean_shift(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """All values moved up: a veil, as of stray light."""
    return clip(pixels * 0.9 + (0.08, 0.15, 0.22, 0.3, 0.4)[severity - 1])


def contrast(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Values drawn towards their mean."""
    mean = pixels.mean((0, 1), keepdims=True)
    return clip(mean + (pixels - mean) * (0.75, 0.55, 0.4, 0.27, 0.15)[severity - 1])


def gaussian_blur(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, as a Gaussian."""
    return clip(gaussian(pixels, (0.8, 1.4, 2.2, 3.4, 5.0)[severity - 1]))


def lens_blur(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, as the disc of an open lens, in linear light."""
    radius = (1.2, 2.0, 3.0, 4.5, 6.5)[severity - 1]
    reach = int(np.ceil(radius))
    places = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1) if y * y + x * x <= radius**2]
    return clip(to_srgb(spread(to_linear(pixels), places, np.ones(len(places)))))


def motion_blur(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The camera moved along a line of random direction."""
    length, angle = (4, 7, 11, 16, 24)[severity - 1], rng.uniform(0, np.pi)
    at = np.linspace(-length / 2, length / 2, 2 * length + 1)
    places = {(round(t * np.sin(angle)), round(t * np.cos(angle))) for t in at}
    ordered = sorted(places)
    return clip(to_srgb(spread(to_linear(pixels), ordered, np.ones(len(ordered)))))
