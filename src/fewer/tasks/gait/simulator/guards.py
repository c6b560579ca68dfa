"""What a score must be compared with: shape alone, which no model of time needs."""

from __future__ import annotations

import numpy as np

__all__ = ["energy_image", "shape_embedding"]


def energy_image(frames: np.ndarray) -> np.ndarray:
    """The gait energy image (Han and Bhanu, 2006): the mean of all silhouettes, float32 (64, 64)."""
    return frames.astype(np.float32).mean(0) / 255


def shape_embedding(frames: np.ndarray) -> np.ndarray:
    """The energy image by horizontal strips, as an embedding (channels, parts): the baseline that knows no motion.

    Examples
    --------
    >>> shape_embedding(np.zeros((3, 64, 64), np.uint8)).shape
    (256, 16)
    """
    image = energy_image(frames)
    return image.reshape(16, -1).T.copy()
