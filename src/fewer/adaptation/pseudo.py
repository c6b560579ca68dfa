"""Pseudo-labels: predictions of target images that are kept where they are plausible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.adaptation.choice import known_images
from fewer.adaptation.problem import Pair, Problem
from fewer.adaptation.style import UNKNOWN, degrade

__all__ = ["Usual", "components", "label", "largest", "might_be", "plausible", "usual_of"]


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


VIEWS = 2
"""Copies of a scan as of another scanner that are segmented too, beside its mirror images."""
SURE = 0.8
"""Probability from which a voxel is sure."""
LEAST = 0.4
"""Share of the voxels of each class, the surest ones, that are kept even where all are less sure."""
MIGHT = 0.9
"""Share of the true voxels of a structure that is not learned yet which its bar lets through."""
COUNTED = 1_000_000
"""Voxels of a class that its bar is taken from, about; of more every so many."""


@dataclass(frozen=True)
class Usual:
    """What the structures of source masks are like.

    Attributes
    ----------
    parts
        Of each class but the background, the most connected parts that a mask has.
    sizes
        Of each, the smallest and the largest; None where no mask has it.
    voxels
        Whether sizes are numbers of voxels, and not shares of the image.
    """

    parts: tuple[int, ...]
    sizes: tuple[tuple[float, float] | None, ...]
    voxels: bool = False

    def size(self, mask: np.ndarray) -> float:
        """Of a structure, as the sizes are."""
        return float(mask.sum() if self.voxels else mask.mean())


def usual_of(masks: Sequence[Tensor], classes: int, voxels: bool = False) -> Usual:
    """Measure source masks, once for all images that are compared with them.

    Parts below a twentieth of the largest one are not counted.

    Examples
    --------
    >>> usual_of([torch.tensor([0, 1, 1, 0, 1])], 2)
    Usual(parts=(2,), sizes=((0.6, 0.6),), voxels=False)
    """
    found = Usual((), (), voxels)
    parts, usual = [], []
    for value in range(1, classes):
        masked = [own for own in ((truth == value).numpy() for truth in masks) if own.any()]
        sizes = [components(own)[1] for own in masked]
        taken = [found.size(own) for own in masked]
        parts.append(max((int((own >= own[0] / 20).sum()) for own in sizes), default=1))
        usual.append((min(taken), max(taken)) if taken else None)
    return Usual(tuple(parts), tuple(usual), voxels)


def plausible(mask: np.ndarray, usual: Usual) -> tuple[np.ndarray, bool]:
    """Compare a predicted mask with what source masks look like, and say whether it may train.

    Of each class so many parts stay as a source mask has at most. What is left over becomes unknown, and so does a
    class that is less than a third as large as the smallest one of the source, or more than three times as large as
    the largest. A mask without any structure left is refused. These numbers are chosen here; the winners of
    crossMoDA 2022 and 2023 checked components in like manner.

    Examples
    --------
    >>> usual = usual_of([torch.tensor([0, 1, 1, 0])], 2)
    >>> plausible(np.array([0, 1, 1, 0]), usual)[1], plausible(np.array([0, 0, 0, 0]), usual)[1]
    (True, False)
    """
    cleaned = np.where(mask > 0, UNKNOWN, 0).astype(np.uint8)
    for value, (most, size) in enumerate(zip(usual.parts, usual.sizes, strict=True), 1):
        kept = largest(mask == value, most)
        if size is not None and size[0] / 3 <= usual.size(kept) <= size[1] * 3:
            cleaned[kept] = value
    return cleaned, bool(((cleaned > 0) & (cleaned < UNKNOWN)).any())


def label(
    problem: Problem,
    model: nn.Module,
    images: Sequence[Tensor],
    *,
    check: bool = True,
    open_classes: Mapping[int, float] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Pair]:
    """Pseudo-labelled images; voxels that are not sure or not plausible are unknown.

    The network sees each image, its mirror image and copies as of another scanner, and the mean of its answers counts.
    These are changes that leave the answer to a network that never saw other contrasts. A voxel is sure from a
    probability of 0.8. For a class that is harder the bar is lower, so that its surest 40 percent of voxels
    over all images stay (after Zou et al. 2018, class-balanced self-training).

    Parameters
    ----------
    check
        False takes the answer for the image itself as it is.
    open_classes
        Structures that the network has not learned, see :func:`might_be`. A voxel that may belong to one of them, or
        lies beside such a voxel, stays unknown, whatever else it is taken for, so that nobody learns that the structure
        is not there.
    advance
        Called after each image.
    """
    seen = []
    for index, image in enumerate(images):
        scores = _views(problem, model, image, index) if check else problem.logits(model, image)
        sure, guess = scores.max(0)
        for value, bar in (open_classes or {}).items() if check else ():
            guess[_wider(scores[value] >= bar)] = UNKNOWN
        # small numbers, since all images are kept until the bars are known
        seen.append((sure.half(), guess.to(torch.uint8)))
        advance()
    if not check:
        return [(image, guess) for image, (_, guess) in zip(images, seen, strict=True)]
    masks = [mask for _, mask in problem.source if mask is not None]
    usual = usual_of(masks, len(problem.classes), problem.measured)
    bars = torch.tensor([_bar(seen, value) for value in range(len(problem.classes))])
    found: list[Pair] = []
    for image, (sure, guess) in zip(images, seen, strict=True):
        cleaned, good = plausible(guess.numpy(), usual)
        if good:
            unsure = sure < bars[guess.long().clamp_max(len(bars) - 1)]  # what is unknown already stays so
            found.append((image, torch.from_numpy(cleaned).masked_fill(unsure, UNKNOWN)))
    return found


def might_be(problem: Problem, model: nn.Module, names: Sequence[str]) -> dict[int, float]:
    """Where structures may be that a network has not learned: class number -> probability from which a voxel may be it.

    Nine tenths of the structure's own voxels in source images whose masks are known lie at or above it. A network that
    has no idea yet gives everything about the same probability, so that most voxels stay open then.
    """
    values = [value for value, name in enumerate(problem.classes) if name in names]
    seen: dict[int, list[Tensor]] = {value: [] for value in values}
    for index, (image, mask) in enumerate(known_images(problem)):
        own = [value for value in values if bool((mask == value).any())]
        if own:
            scores = _views(problem, model, image, index)
            for value in own:
                seen[value].append(scores[value][mask == value])
    return {value: float(np.quantile(torch.cat(found).numpy(), 1 - MIGHT)) for value, found in seen.items() if found}


def _wider(mask: Tensor) -> Tensor:
    """A mask with the neighbours of its voxels along every axis, since rims are the least sure."""
    for axis in range(mask.ndim):
        size = mask.shape[axis]
        once = mask.clone()
        once.narrow(axis, 0, size - 1).logical_or_(mask.narrow(axis, 1, size - 1))
        once.narrow(axis, 1, size - 1).logical_or_(mask.narrow(axis, 0, size - 1))
        mask = once
    return mask


def _bar(seen: Sequence[tuple[Tensor, Tensor]], value: int) -> float:
    """Probability from which a voxel of a class is kept."""
    step = max(1, sum(guess.numel() for _, guess in seen) // COUNTED)
    own = torch.cat([sure.flatten()[::step][guess.flatten()[::step] == value] for sure, guess in seen])
    return min(SURE, float(np.quantile(own.float().numpy(), 1 - LEAST))) if len(own) else SURE


def _views(problem: Problem, model: nn.Module, image: Tensor, index: int) -> Tensor:
    """Mean of the class probabilities over an image, copies of it, and where mirrors train too their mirror images."""
    rng = np.random.default_rng([13, index])
    seen = [image, *(degrade(image, None, rng) for _ in range(VIEWS))]
    total = torch.stack([problem.logits(model, view).softmax(0) for view in seen]).sum(0)
    if problem.mirror is None:
        return total / len(seen)
    axis = 1 + problem.mirror
    for view in seen[:2]:
        total = total + problem.logits(model, view.flip(axis)).softmax(0).flip(axis)
    return total / (len(seen) + 2)
