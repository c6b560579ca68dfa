"""Sensor: noise of several kinds, and what is left when noise is taken out."""

from __future__ import annotations

import numpy as np

from fewer.data.distortions.filters import clip, from_ycc, gaussian, to_ycc

__all__ = ["denoise", "impulse_noise", "multiplicative_noise", "white_noise", "white_noise_ycc"]


def white_noise(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise in each channel."""
    sigma = (0.03, 0.06, 0.1, 0.16, 0.25)[severity - 1]
    return clip(pixels + sigma * rng.standard_normal(pixels.shape, np.float32))


def white_noise_ycc(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise in luma, and twice as much in the differences of colour: coloured speckles."""
    sigma = (0.02, 0.04, 0.07, 0.11, 0.17)[severity - 1]
    noise = rng.standard_normal(pixels.shape, np.float32) * np.array([1, 2, 2], np.float32)
    return clip(from_ycc(to_ycc(pixels) + sigma * noise))


def impulse_noise(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Pixels that are black or white."""
    share = (0.01, 0.03, 0.07, 0.13, 0.22)[severity - 1]
    drawn = rng.random(pixels.shape[:2])
    out = pixels.copy()
    out[drawn < share / 2] = 0
    out[drawn > 1 - share / 2] = 1
    return out


def multiplicative_noise(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Noise that grows with brightness."""
    sigma = (0.08, 0.15, 0.24, 0.36, 0.55)[severity - 1]
    return clip(pixels * (1 + sigma * rng.standard_normal(pixels.shape, np.float32)))


def denoise(pixels: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Noise that was smoothed away with the fine texture; edges are kept, what remains looks like wax."""
    sigma = (0.03, 0.05, 0.08, 0.12, 0.18)[severity - 1]
    noisy = pixels + sigma * rng.standard_normal(pixels.shape, np.float32)
    smooth = gaussian(noisy, 1.0 + severity * 0.5)
    # a guided mean: where the local spread is larger than that of the noise, an edge stays
    spread = np.maximum(gaussian(noisy**2, 1.0 + severity * 0.5) - smooth**2, 0)
    keep = spread / (spread + 4 * sigma**2)
    return clip(smooth + keep * (noisy - smooth))
