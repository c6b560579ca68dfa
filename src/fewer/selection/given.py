"""Vectors that a user brings along in an ``.npy`` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import map_array
from fewer.selection.embed import Embedded
from fewer.selection.pool import blocks

__all__ = ["given_vectors"]


def given_vectors(path: Path, names: list[str], gone: frozenset[int]) -> Embedded:
    """Vectors from a file, whose rows are the present images in the order of their paths."""
    values = map_array(path)
    present = sorted(name for row, name in enumerate(names) if row not in gone)
    if values.ndim != 2 or len(values) != len(present):
        raise FewerError(
            f"{path} has the shape {values.shape}, but the pool has {len(present)} images; it needs one row per image, "
            "in the order of their sorted relative paths"
        )
    if names != present:  # images came or went since the first round, and rows of the queue keep their places
        place = {name: at for at, name in enumerate(present)}
        values = values[[place.get(name, 0) for name in names]]
    bad = {row: "its features are NaN or infinite" for row in np.flatnonzero(~_finite(values)).tolist()}
    return Embedded(values, np.full(len(names), np.nan, np.float32), bad, len(names))


def _finite(values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.isfinite(block).all(1) for _, block in blocks(values)])
