"""What photos look like in numbers, so that images to show to raters can be chosen by their quality.

Features of networks that tell objects are trained not to see defects; these are statistics of scenes in an image's own
pixels, and nothing in them is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fewer.core.progress import SILENT, Progress
from fewer.data.decode import read_image
from fewer.tasks.quality.encoders import StatisticsEncoder
from fewer.tasks.quality.scene import LEAST_SIDE, scene_statistics
from fewer.tasks.quality.views import places

__all__ = ["describe_photos"]

_SIDE, _CROPS = 192, 3


def describe_photos(files: Sequence[Path], *, progress: Progress = SILENT) -> tuple[np.ndarray, dict[int, str]]:
    """Statistics of scenes of every photo, in units of the spread over all of them.

    The mean over crops at native resolution, the centre and two corners: shrinking would hide blur and noise.

    Parameters
    ----------
    files
        Photos of any size.
    progress
        Shows a stage.

    Returns
    -------
    tuple
        [N, numbers], where rows of photos that cannot be read or are smaller than 32 pixels are zero; and the reason
        by row for each of those.

    Examples
    --------
    >>> describe_photos([])[0].shape
    (0, 753)
    """
    found = np.zeros((len(files), StatisticsEncoder.WHOLE), np.float32)
    bad: dict[int, str] = {}
    with progress.stage("look", len(files)) as stage:
        for row, path in enumerate(files):
            try:
                pixels = np.asarray(read_image(path).convert("RGB"))
            except Exception as error:  # a broken file can make a decoder raise anything
                bad[row] = str(error) or type(error).__name__
            else:
                if min(pixels.shape[:2]) < LEAST_SIDE:
                    bad[row] = f"it has fewer than {LEAST_SIDE} pixels a side"
                else:
                    found[row] = _statistics(pixels)
            stage.advance(1)
    good = [row for row in range(len(files)) if row not in bad]
    if good:
        values = found[good]
        scaled = (values - values.mean(0)) / (values.std(0) + 1e-3)
        found[good] = np.clip(scaled, -5, 5)  # one odd photo does not rule a direction
    return found, bad


def _statistics(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    side = min(_SIDE, height, width)
    corners = places(height, width, side, _CROPS)
    crops = np.stack([pixels[top : top + side, left : left + side] for top, left in dict.fromkeys(corners)])
    scaled = torch.from_numpy(crops.transpose(0, 3, 1, 2).copy()).float() / 255
    return scene_statistics(scaled)[0].mean(0).numpy()
