"""Which weights of a training are kept, without a target label.

The score is the geometric mean of two numbers from 0 to 1. One is the Dice of source images that never train, in the
look that the method trains on: a network that forgets to segment loses it. The other is the Dice between two
predictions of each target image, of the image itself and of a copy with a random intensity curve: a network that has
not understood the target loses it. A network that finds nothing scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fewer.adaptation.problem import Pair, Problem
from fewer.adaptation.style import degrade, random_curve

__all__ = [
    "agreement",
    "held_out",
    "judge",
    "known_images",
    "looked_at",
    "mean_sizes",
    "pooled_dice",
    "signs",
    "some",
    "target_guesses",
    "trust",
    "unlearned",
]

LOOKED_AT = 6
"""Images of each domain that are looked at."""
TRUSTED_ON = 24
"""Target images that networks are compared on, if they are small."""
TRUSTED_VOXELS = 16_000_000
"""Voxels of these images, about."""
FEWEST = 4
"""Of them, however large they are."""


Item = TypeVar("Item")


def some(items: Sequence[Item], count: int) -> list[Item]:
    """So many of them, drawn once and for all and in their order.

    The first ones would often be neighbouring slices of one subject.

    Examples
    --------
    >>> some("abc", 5), len(some(range(100), 5))
    (['a', 'b', 'c'], 5)
    """
    chosen = np.random.default_rng(19).permutation(len(items))[:count]
    return [items[int(index)] for index in np.sort(chosen)]


def pooled_dice(pairs: Sequence[tuple[Tensor, Tensor]], classes: int) -> float:
    """Mean over the classes that appear of the Dice of all voxels together; 0 if none does.

    Examples
    --------
    >>> import torch
    >>> one = torch.tensor([0, 1, 1])
    >>> pooled_dice([(one, one)], 2), pooled_dice([(0 * one, 0 * one)], 2)
    (1.0, 0.0)
    """
    found = []
    for value in range(1, classes):
        both = sum(int(((a == value) & (b == value)).sum()) for a, b in pairs)
        either = sum(int((a == value).sum() + (b == value).sum()) for a, b in pairs)
        if either:
            found.append(2 * both / either)
    return float(np.mean(found)) if found else 0.0


def agreement(problem: Problem, model: nn.Module) -> float:
    """Dice between predictions of target images and of copies with another contrast."""
    pairs = []
    for index, image in enumerate(some(problem.target, LOOKED_AT)):
        other = random_curve(image, None, np.random.default_rng([11, index]))
        pairs.append((problem.logits(model, image).argmax(0), problem.logits(model, other).argmax(0)))
    return pooled_dice(pairs, len(problem.classes))


def held_out(problem: Problem, held: Sequence[Pair], model: nn.Module, most: int) -> float:
    """Dice on labelled source images that do not train, so many of them at most."""
    pairs = [(problem.logits(model, x).argmax(0), y) for x, y in some(held, most) if y is not None]
    return pooled_dice(pairs, len(problem.classes))


def judge(problem: Problem, held: Sequence[Pair], model: nn.Module) -> Mapping[str, float]:
    """The score that chooses, first, and its two parts."""
    source, same = held_out(problem, held, model, LOOKED_AT), agreement(problem, model)
    return {"choice": (source * same) ** 0.5, "held-out source": source, "agreement": same}


def mean_sizes(masks: Sequence[Tensor], classes: int, voxels: bool = False) -> np.ndarray:
    """Mean share of the image that each structure takes, or its mean number of voxels.

    Examples
    --------
    >>> import torch
    >>> mean_sizes([torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 0, 0])], 2).tolist()
    [0.25]
    """
    sizes = np.array([[float((m == v).sum()) for v in range(1, classes)] for m in masks])
    return (sizes if voxels else sizes / np.array([[m.numel()] for m in masks])).mean(0)


def trust(problem: Problem, model: nn.Module) -> float:
    """How far a network's answers on the target can be believed, from 0 to 1, without a label; see :func:`signs`."""
    return signs(problem, model)["trust"]


def signs(problem: Problem, model: nn.Module, seen: Sequence[Tensor] | None = None) -> dict[str, float]:
    """What is known of a network on the target without a label: its ``trust`` and the three parts of it.

    ``mirror`` is the Dice between the answers for an image and for a change of it that must not matter: its mirror
    image where mirrors train, else a copy as of another scanner. ``sizes`` says how alike the mean sizes of structures
    are in these answers and in source masks, in voxels where these are as long in both domains and else as shares of
    the image: smaller by larger, mean over the structures. ``held-out source`` is the Dice on source images that did
    not train. ``trust`` is the geometric mean of the three. It compares networks on one
    target; values of different data sets cannot be compared. Networks that are compared must be trained to the end:
    after 300 steps from fluorescence to histology the first two preferred one with a Dice of 0.04.

    Parameters
    ----------
    seen
        Its answers, where :func:`target_guesses` has given them already.
    """
    count, images = len(problem.classes), looked_at(problem)
    guesses = target_guesses(problem, model) if seen is None else seen
    pairs = []
    for index, (image, guess) in enumerate(zip(images, guesses, strict=True)):
        if problem.mirror is not None:
            other = problem.logits(model, image.flip(1 + problem.mirror)).argmax(0).flip(problem.mirror)
        else:
            other = problem.logits(model, degrade(image, None, np.random.default_rng([17, index]))).argmax(0)
        pairs.append((guess, other))
    here = mean_sizes(guesses, count, problem.measured)
    there = mean_sizes([mask for _, mask in problem.source if mask is not None], count, problem.measured)
    alike = float(np.mean(np.minimum(here, there) / np.maximum(np.maximum(here, there), 1e-9)))
    mirror, held = pooled_dice(pairs, count), held_out(problem, problem.held, model, TRUSTED_ON)
    return {"trust": (mirror * alike * held) ** (1 / 3), "mirror": mirror, "sizes": alike, "held-out source": held}


def looked_at(problem: Problem) -> list[Tensor]:
    """The target images that networks are compared on: fewer of large volumes, so that this takes no longer."""
    affordable = max(FEWEST, TRUSTED_VOXELS // problem.target[0][0].numel())
    return some(problem.target, min(TRUSTED_ON, affordable))


def target_guesses(problem: Problem, model: nn.Module) -> list[Tensor]:
    """What a network finds in the target images that networks are compared on."""
    return [problem.logits(model, image).argmax(0).to(torch.uint8) for image in looked_at(problem)]


FOUND = 0.05
"""Share of a structure's voxels in held-out source images below which a network has not learned it."""


def unlearned(problem: Problem, model: nn.Module) -> list[str]:
    """Structures that a network finds next to nothing of even in held-out source images.

    Its labels of the target would teach that they are not there. A structure that no held-out image has is looked for
    in those that train.
    """
    guesses = [(problem.logits(model, image).argmax(0), mask) for image, mask in known_images(problem)]
    found = []
    for value, name in enumerate(problem.classes):
        true = sum(int((mask == value).sum()) for _, mask in guesses)
        if value and sum(int((guess == value).sum()) for guess, _ in guesses) < FOUND * true:
            found.append(name)
    return found


def known_images(problem: Problem) -> list[tuple[Tensor, Tensor]]:
    """Held-out source images with their masks, and two that train for each structure that none of them has."""
    held = [(image, mask) for image, mask in some(problem.held, TRUSTED_ON) if mask is not None]
    for value in range(1, len(problem.classes)):
        if not any(bool((mask == value).any()) for _, mask in held):
            having = ((image, mask) for image, mask in problem.source if mask is not None and (mask == value).any())
            held += islice(having, 2)
    return held
