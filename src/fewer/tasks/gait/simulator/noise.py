"""What segmentation gets wrong: ragged edges that flicker slowly, missing feet, something in front, lost frames."""

from __future__ import annotations

import numpy as np

__all__ = ["lose_frames", "segmented"]


def _blur(values: np.ndarray) -> np.ndarray:
    for axis in (1, 2):
        values = (np.roll(values, 1, axis) + 2 * values + np.roll(values, -1, axis)) / 4
    return values


def segmented(frames: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Silhouettes as a segmentation would give them.

    Parameters
    ----------
    frames
        uint8 (frames, 64, 64), clean.
    rng
        Of the sequence.
    strength
        0 leaves everything as it is; 1 is like a still camera indoors.

    Returns
    -------
    ndarray
        As ``frames``.
    """
    if strength <= 0:
        return frames
    count, side = len(frames), frames.shape[1]
    soft = _blur(frames.astype(np.float32) / 255)
    # noise in cells of eight pixels that stays for some frames, and finer noise that stays shorter
    field = np.zeros(frames.shape, np.float32)
    for cell, keep, weight in ((8, 0.8, 0.16), (2, 0.4, 0.10)):
        coarse = rng.normal(size=(count, side // cell, side // cell)).astype(np.float32)
        for t in range(1, count):
            coarse[t] = keep * coarse[t - 1] + np.sqrt(1 - keep**2) * coarse[t]
        field += weight * np.repeat(np.repeat(coarse, cell, 1), cell, 2)
    found = soft + strength * _blur(field) * (0.25 + 3 * soft * (1 - soft)) > 0.5
    if rng.random() < 0.3 * strength:  # feet lost on the floor for a while
        start, length = int(rng.integers(count)), int(rng.integers(3, 9))
        found[start : start + length, side - int(rng.integers(2, 6)) :] = False
    if rng.random() < 0.15 * strength:  # something stands in front
        start, length, left = int(rng.integers(count)), int(rng.integers(4, 12)), int(rng.integers(15, 40))
        found[start : start + length, :, left : left + int(rng.integers(3, 8))] = False
    return found.astype(np.uint8) * 255


def lose_frames(frames: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Leave out a share of the frames, at random places; at least one stays."""
    keep = rng.random(len(frames)) >= share
    keep[0] |= not keep.any()
    return frames[keep]
