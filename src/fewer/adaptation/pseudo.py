"""Pseudo-labels: predictions of target images that are kept where they are plausible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.adaptation.problem import Pair, Problem

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


def plausible(mask: np.ndarray, masks: Sequence[Tensor], classes: int) -> tuple[np.ndarray, bool]:
    """Clean a predicted mask by what source masks look like, and say whether it may train.

    Of each class so many parts stay as a source mask has at most; parts below a twentieth of the largest one are not
    counted. A mask is refused when a class that nearly all source masks have (nine of ten) is missing, or when a class
    takes less than a third of the smallest share of the image that it has in the source, or more than three times the
    largest. These numbers are chosen here; the winners of crossMoDA 2022 and 2023 checked components in like manner.

    Examples
    --------
    >>> truth = [torch.tensor([0, 1, 1, 0])]
    >>> plausible(np.array([0, 1, 1, 0]), truth, 2)[1], plausible(np.array([0, 0, 0, 0]), truth, 2)[1]
    (True, False)
    """
    cleaned, good = np.zeros_like(mask), True
    for value in range(1, classes):
        most = 1
        for truth in masks:
            _, sizes = components((truth == value).numpy())
            if len(sizes):
                most = max(most, int((sizes >= sizes[0] / 20).sum()))
        kept = largest(mask == value, most)
        cleaned[kept] = value
        shares = _sizes(masks, value)
        there, own = shares[shares > 0], float(kept.mean())
        if len(there) >= 0.9 * len(shares) and own == 0:
            good = False
        if own > 0 and len(there) and not there.min() / 3 <= own <= there.max() * 3:
            good = False
    return cleaned, good


def label(problem: Problem, model: nn.Module, images: Sequence[Tensor], *, check: bool = True) -> list[Pair]:
    """Pseudo-labelled images; implausible ones are left out, and so is the check where it is switched off."""
    masks = [mask for _, mask in problem.source if mask is not None]
    found: list[Pair] = []
    for image in images:
        guess = problem.logits(model, image).argmax(0).to(torch.uint8)
        if check:
            cleaned, good = plausible(guess.numpy(), masks, len(problem.classes))
            if not good:
                continue
            guess = torch.from_numpy(cleaned)
        found.append((image, guess))
    return found
