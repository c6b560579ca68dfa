"""Pseudo-labels: predictions of target images that are kept where they are plausible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.adaptation.problem import Pair, Problem
from fewer.adaptation.style import UNKNOWN, degrade

__all__ = ["components", "label", "largest", "plausible"]


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected parts of a mask (neighbours share an edge or face): their numbers, and sizes, the largest first."""
    from scipy.ndimage import label as number

    found: Any = number(mask)
    numbered, count = found
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    rank = np.zeros(count + 1, int)
    rank[order + 1] = np.arange(1, count + 1)
    return rank[numbered], sizes[order]


def largest(mask: np.ndarray, count: int) -> np.ndarray:
    """The largest parts of a mask.

    Examples
    --------
    >>> largest(np.array([1, 1, 0, 1]), 1).astype(int).tolist()
    [1, 1, 0, 0]
    """
    ranked, _ = components(mask)
    return (ranked > 0) & (ranked <= count)


def _sizes(masks: Sequence[Tensor], value: int) -> np.ndarray:
    return np.array([float((mask == value).float().mean()) for mask in masks])


VIEWS = 2
"""Copies of a scan as of another scanner that are segmented too, beside its mirror images."""
SURE = 0.8
"""Probability from which a voxel is sure."""
LEAST = 0.4
"""Share of the voxels of each class, the surest ones, that are kept even where all are less sure."""


def plausible(mask: np.ndarray, masks: Sequence[Tensor], classes: int) -> tuple[np.ndarray, bool]:
    """Compare a predicted mask with what source masks look like, and say whether it may train.

    Of each class so many parts stay as a source mask has at most; parts below a twentieth of the largest one are not
    counted. What is left over becomes unknown, and so does a class that takes less than a third of the smallest share
    of the image that it has in the source, or more than three times the largest. A mask without any structure left is
    refused. These numbers are chosen here; the winners of crossMoDA 2022 and 2023 checked components in like manner.

    Examples
    --------
    >>> truth = [torch.tensor([0, 1, 1, 0])]
    >>> plausible(np.array([0, 1, 1, 0]), truth, 2)[1], plausible(np.array([0, 0, 0, 0]), truth, 2)[1]
    (True, False)
    """
    cleaned = np.where(mask > 0, UNKNOWN, 0).astype(np.uint8)
    for value in range(1, classes):
        most = 1
        for truth in masks:
            _, sizes = components((truth == value).numpy())
            if len(sizes):
                most = max(most, int((sizes >= sizes[0] / 20).sum()))
        kept = largest(mask == value, most)
        shares = _sizes(masks, value)
        there, own = shares[shares > 0], float(kept.mean())
        if len(there) and there.min() / 3 <= own <= there.max() * 3:
            cleaned[kept] = value
    return cleaned, bool(((cleaned > 0) & (cleaned < UNKNOWN)).any())


def label(problem: Problem, model: nn.Module, images: Sequence[Tensor], *, check: bool = True) -> list[Pair]:
    """Pseudo-labelled images; voxels that are not sure or not plausible are unknown.

    The network sees each image, its mirror image and copies as of another scanner, and the mean of its answers counts.
    These are changes that leave the answer to a network that never saw other contrasts. A voxel is sure from a
    probability of 0.8. For a class that is harder the bar is lower, so that its surest 40 percent of voxels
    over all images stay (after Zou et al. 2018, class-balanced self-training).

    Parameters
    ----------
    check
        False takes the answer for the image itself as it is.
    """
    if not check:
        return [(image, problem.logits(model, image).argmax(0).to(torch.uint8)) for image in images]
    masks = [mask for _, mask in problem.source if mask is not None]
    seen = [_views(problem, model, image, index).max(0) for index, image in enumerate(images)]
    bars = []
    for value in range(len(problem.classes)):
        own = torch.cat([sure[guess == value] for sure, guess in seen])
        bars.append(min(SURE, float(np.quantile(own.numpy(), 1 - LEAST))) if len(own) else SURE)
    bar = torch.tensor(bars)
    found: list[Pair] = []
    for image, (sure, guess) in zip(images, seen, strict=True):
        cleaned, good = plausible(guess.numpy(), masks, len(problem.classes))
        if good:
            unsure = sure < bar[guess]
            found.append((image, torch.from_numpy(cleaned).masked_fill(unsure, UNKNOWN)))
    return found


def _views(problem: Problem, model: nn.Module, image: Tensor, index: int) -> Tensor:
    """Mean of the class probabilities over an image, copies of it, and where mirrors train too their mirror images."""
    rng = np.random.default_rng([13, index])
    seen = [image, *(degrade(image, None, rng) for _ in range(VIEWS))]
    total = torch.stack([problem.logits(model, view).softmax(0) for view in seen]).sum(0)
    if not problem.mirrored:
        return total / len(seen)
    for view in seen[:2]:
        total = total + problem.logits(model, view.flip(1)).softmax(0).flip(1)
    return total / (len(seen) + 2)
