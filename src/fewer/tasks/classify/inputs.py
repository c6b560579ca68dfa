"""Images of a labelled set as a trained model sees them, for the engine; their labels are not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fewer.core.errors import FewerError
from fewer.data.images import ImageSet, split_files
from fewer.models.spec import LoadedModel
from fewer.tasks.classify.evaluate import batches_of
from fewer.tasks.classify.readers import open_data

__all__ = ["images"]

_STREAM = 4
"""Keeps this draw apart from those of the training."""


def images(loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> ImageSet:
    """Images of a set that is no folder of image files.

    Calibration images come from the part that trains, held-out ones from the part that tests; of a set without parts
    a quarter is held out, chosen by a hash of the names.

    Raises
    ------
    FewerError
        When the set holds too few images.
    """
    data = open_data(folder)
    if data.has_parts:
        rows = data.rows("train" if part == "calibration" else "test")
    else:
        keys = [Path(name) for name in data.names]
        chosen = {str(path) for path in split_files(keys, list(data.names), part)}
        rows = np.array([i for i, name in enumerate(keys) if str(name) in chosen])
    order = np.random.default_rng([seed, _STREAM]).permutation(rows)
    skipped: list[tuple[str, str]] = []
    tensors, kept = [], []
    for batch, found in batches_of(data, order, loaded.preprocess, min(count, 64), skipped):
        tensors.append(batch)
        kept += found
        if len(kept) >= count:
            break
    if not kept:
        raise FewerError(f"{folder} holds no readable image for the {part} part")
    files = [data.root / data.names[row] for row in kept[:count]]
    return ImageSet(torch.cat(tensors)[:count], files, [(data.root / name, why) for name, why in skipped])
