"""Source images painted in the grey levels of the target, structure by structure, from pseudo-labels of the target.

A pseudo-label is wrong at many voxels, and a network that trains on it learns its errors. But the mean grey level of a
structure is right even where a fifth of its voxels are not. So pseudo-labels are used in a second way here: they tell
how bright each structure of the target is, and source images get these grey levels, with their own masks, which are
right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewer.adaptation.problem import Pair
from fewer.adaptation.style import UNKNOWN, Style, blur, calm, inside, onto_scale, regions, split_levels

__all__ = ["TargetLook", "look_of", "paint_like"]

PARTS = 4
"""Parts that the background is divided into by its own grey levels."""
FEWEST = 8
"""Voxels of a structure from which its grey level is measured."""


@dataclass(frozen=True)
class TargetLook:
    """Grey levels of target images, channel by channel.

    Attributes
    ----------
    mean, spread
        Of each image, channel and class: ``(images, channels, classes)``; NaN where a class is not seen.
    background
        Levels of the parts of the background: ``(images, channels, parts)``; NaN where there is none.
    air
        ``(images, channels)``; NaN where there is no air.
    """

    mean: np.ndarray
    spread: np.ndarray
    background: np.ndarray
    air: np.ndarray


def look_of(labelled: Sequence[Pair], classes: int) -> TargetLook:
    """Measure the grey levels of structures in pseudo-labelled target images.

    Examples
    --------
    >>> image = torch.tensor([[[0.0] * 8 + [4.0] * 8]])
    >>> mask = torch.tensor([[0] * 8 + [1] * 8], dtype=torch.uint8)
    >>> look_of([(image, mask)], 2).mean[0, 0, 1].item()
    4.0
    """
    shape = (len(labelled), len(labelled[0][0]))
    mean, spread = np.full((*shape, classes), np.nan), np.full((*shape, classes), np.nan)
    background, air = np.full((*shape, PARTS), np.nan), np.full(shape, np.nan)
    for i, (image, mask) in enumerate(labelled):
        assert mask is not None
        for j, channel in enumerate(image):
            where = inside(channel)
            if not where.all():
                air[i, j] = float(channel.min())
            for value in range(1, classes):
                own = channel[(mask == value) & where].double().numpy()
                if len(own) >= FEWEST:
                    mean[i, j, value], spread[i, j, value] = np.median(own), own.std()
            rest = calm(channel)[(mask == 0) & where].double().numpy()
            if len(rest) >= FEWEST * PARTS:
                background[i, j] = split_levels(rest, PARTS)
    return TargetLook(mean, spread, background, air)


def paint_like(look: TargetLook, jitter: float = 0.15) -> Style:
    """A style that gives a source image the grey levels of a random target image.

    Each structure is shifted and stretched as a whole, so that its texture stays. Half of the time the texture is
    turned over, since what is a little brighter in one modality may be a little darker in another. A class that the
    target image does not show takes its level from the other images. Nobody knows which part of the background
    corresponds to which, so these take the target's levels in a random order.

    Parameters
    ----------
    jitter
        Deviation of a random change of each level.

    Examples
    --------
    >>> image, mask = torch.randn(1, 8, 8), torch.zeros(8, 8, dtype=torch.uint8)
    >>> mask[2:6, 2:6] = 1
    >>> paint_like(look_of([(image, mask)], 2))(image, mask, np.random.default_rng(0)).shape
    torch.Size([1, 8, 8])
    """
    usual = [_middle(values) for values in (look.mean, look.spread, look.background)]

    def run(image: Tensor, mask: Tensor | None, rng: np.random.Generator) -> Tensor:
        chosen = int(rng.integers(len(look.mean)))
        found = []
        for j, channel in enumerate(image):
            where = inside(channel)
            levels = [
                np.where(np.isnan(values[chosen, j]), typical[j], values[chosen, j])
                for values, typical in zip((look.mean, look.spread, look.background), usual, strict=True)
            ]
            painted = _paint(channel, mask, where, levels, rng, jitter)
            air = look.air[chosen, j]
            found.append(onto_scale(painted, where, None if np.isnan(air) else float(air)))
        return torch.stack(found)

    return run


def _middle(values: np.ndarray) -> np.ndarray:
    """Median over images of what is known; NaN where nothing is."""
    found = np.full(values.shape[1:], np.nan)
    for at in np.ndindex(found.shape):
        known = values[(slice(None), *at)]
        known = known[~np.isnan(known)]
        if len(known):
            found[at] = np.median(known)
    return found


def _paint(
    channel: Tensor,
    mask: Tensor | None,
    where: Tensor,
    levels: Sequence[np.ndarray],
    rng: np.random.Generator,
    jitter: float,
) -> Tensor:
    mean, spread, background = levels
    areas = regions(channel, mask, where, PARTS)
    count = int(areas.max()) + 1
    top = 0 if mask is None else int(torch.where(mask < UNKNOWN, mask, 0).max())
    shift, factor = np.zeros(count), np.ones(count)
    order = rng.permutation(background)
    for value in range(1, count):
        own = channel[areas == value].double().numpy()
        if not len(own):
            continue
        if value <= top:
            level, wide = mean[value], spread[value]
        else:
            level, wide = order[(value - top - 1) % PARTS], np.nan
        level = rng.uniform(-1.5, 1.5) if np.isnan(level) else level + rng.normal(0, jitter)
        own_spread = max(float(own.std()), 1e-3)
        ratio = 1.0 if np.isnan(wide) else float(np.clip(wide / own_spread, 0.3, 3.0))
        factor[value] = ratio * (1 if rng.random() < 0.5 else -1)
        shift[value] = level - factor[value] * float(np.median(own))
    # the change fades over about a voxel at the rims, as partial volumes do
    both = [blur(torch.from_numpy(values).float()[areas], 0.6) for values in (factor, shift)]
    return both[0] * channel + both[1]
