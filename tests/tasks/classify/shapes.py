"""Simulated photos whose class can be seen by eye: stripes one way, the other way, or a disc."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["CLASSES", "picture", "write_folders"]

CLASSES = ("across", "disc", "upright")


def picture(kind: str, rng: np.random.Generator, side: int = 32) -> np.ndarray:
    """uint8 [side, side, 3]."""
    y, x = np.mgrid[:side, :side]
    phase, period = rng.uniform(0, 6.3), rng.uniform(5, 8)
    if kind == "disc":
        cy, cx = rng.uniform(side / 3, 2 * side / 3, 2)
        wave = np.where((y - cy) ** 2 + (x - cx) ** 2 < (side / 4) ** 2, 1.0, -1.0)
    else:
        wave = np.sin((y if kind == "across" else x) * 6.283 / period + phase)
    values = 128 + 70 * wave[..., None] + rng.normal(0, 12, (side, side, 3))
    return values.clip(0, 255).astype(np.uint8)


def write_folders(root: Path, each: int = 12, seed: int = 0, side: int = 32) -> Path:
    """A folder of PNG files per class."""
    rng = np.random.default_rng(seed)
    for kind in CLASSES:
        (root / kind).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            Image.fromarray(picture(kind, rng, side)).save(root / kind / f"{kind}{i:03d}.png")
    return root
