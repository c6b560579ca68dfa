"""Which weights of a training are kept, without a target label.

The score is the geometric mean of two numbers from 0 to 1. One is the Dice of source images that never train, in the
look that the method trains on: a network that forgets to segment loses it. The other is the Dice between two
predictions of each target image, of the image itself and of a copy with a random intensity curve: a network that has
not understood the target loses it. A network that finds nothing scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from fewer.adaptation.problem import Pair, Problem
from fewer.adaptation.style import random_curve

__all__ = ["agreement", "judge", "pooled_dice"]

LOOKED_AT = 4
"""Images of each domain that are looked at."""


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
    for index, image in enumerate(problem.target[:LOOKED_AT]):
        other = random_curve(image, None, np.random.default_rng([11, index]))
        pairs.append((problem.logits(model, image).argmax(0), problem.logits(model, other).argmax(0)))
    return pooled_dice(pairs, len(problem.classes))


def judge(problem: Problem, held: Sequence[Pair], model: nn.Module) -> Mapping[str, float]:
    """The score that chooses, first, and its two parts."""
    pairs = [(problem.logits(model, x).argmax(0), y) for x, y in held[:LOOKED_AT] if y is not None]
    source, same = pooled_dice(pairs, len(problem.classes)), agreement(problem, model)
    return {"choice": (source * same) ** 0.5, "held-out source": source, "agreement": same}
