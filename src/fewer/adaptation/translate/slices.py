"""Slices of images and volumes for translators, which are 2-D or see a few neighbouring slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.adaptation.problem import Pair

__all__ = ["SliceDraws", "Translator", "slice_axis", "slices_of"]


def slice_axis(image: Tensor) -> int:
    """The axis of a volume ``(channels, x, y, z)`` along which slices lie: the shortest, the last of equal ones."""
    space = image.shape[1:]
    return max(range(3), key=lambda axis: (-space[axis], axis))


def slices_of(image: Tensor, axis: int, around: int = 1) -> Tensor:
    """All slices of a volume with their neighbours as channels; the ends are repeated.

    Returns
    -------
    Tensor
        ``(slices, channels * around, height, width)``; an image ``(channels, height, width)`` is one slice.

    Examples
    --------
    >>> slices_of(torch.zeros(1, 4, 5, 6), 2, 3).shape
    torch.Size([6, 3, 4, 5])
    """
    if image.ndim == 3:
        return image[None].repeat(1, around, 1, 1)
    planes = image.movedim(axis + 1, 0)
    count, half = len(planes), around // 2
    shifted = [planes[(torch.arange(count) + shift).clamp(0, count - 1)] for shift in range(-half, around - half)]
    return torch.cat(shifted, 1)


SMALLEST = 16
"""Pixels along each side of the smallest crop."""


def _longest_side(image: Tensor) -> int:
    sides = list(image.shape[1:])
    if len(sides) == 3:
        del sides[slice_axis(image)]
    return max(sides)


class SliceDraws:
    """Random crops of slices: the draw depends on a key alone.

    Parameters
    ----------
    pairs
        Images or volumes, with masks or without.
    size
        Pixels along each side of a crop, but no more than the largest slice has (or 16, which the networks need);
        smaller slices are padded with their smallest value.
    around
        Neighbouring slices that are channels.
    """

    def __init__(self, pairs: Sequence[Pair], size: int, around: int) -> None:
        self.pairs, self.around = pairs, around
        self.size = min(size, max(SMALLEST, *(_longest_side(image) for image, _ in pairs)))

    def batch(self, key: Sequence[int], count: int) -> tuple[Tensor, Tensor]:
        """Crops ``(count, channels, size, size)`` and class indices ``(count, size, size)``."""
        found = [self._draw(np.random.default_rng([*key, index])) for index in range(count)]
        return torch.stack([x for x, _ in found]), torch.stack([y for _, y in found])

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        image, mask = self.pairs[int(rng.integers(len(self.pairs)))]
        if image.ndim == 4:
            axis, count = slice_axis(image), image.shape[slice_axis(image) + 1]
            # the ends of a volume are often empty
            at = int(rng.integers(count // 8, count - count // 8))
            near = torch.arange(at - self.around // 2, at + self.around - self.around // 2).clamp(0, count - 1)
            image = image.index_select(axis + 1, near).movedim(axis + 1, 0).flatten(0, 1)
            mask = None if mask is None else mask.select(axis, at)
        else:
            image = image.repeat(self.around, 1, 1)
        if mask is None:
            mask = torch.zeros(image.shape[1:], dtype=torch.uint8)
        short = [max(0, self.size - n) for n in image.shape[1:]]
        if any(short):
            pad = (0, short[1], 0, short[0])
            image, mask = F.pad(image, pad, value=float(image.min())), F.pad(mask, pad)
        row, column = (int(rng.integers(n - self.size + 1)) for n in image.shape[1:])
        window = (slice(row, row + self.size), slice(column, column + self.size))
        return image[(slice(None), *window)], mask[window]


class Translator:
    """Translates whole prepared images slice by slice, on the very grid that they lie on.

    Parameters
    ----------
    network
        From ``(batch, channels * around, height, width)`` to ``(batch, channels, height, width)``.
    """

    def __init__(self, network: nn.Module, around: int = 1) -> None:
        self.network, self.around = network.eval(), around

    @torch.no_grad()
    def image(self, image: Tensor) -> Tensor:
        """The translation of an image ``(channels, *space)``: of the same shape; air stays air."""
        from fewer.adaptation.style import inside

        run: Callable[[Tensor], Tensor] = self.network
        if image.ndim == 3:
            out = run(slices_of(image, 0, self.around))[0]
        else:
            axis = slice_axis(image)
            planes = slices_of(image, axis, self.around)
            out = torch.cat([run(part) for part in planes.split(8)]).movedim(0, axis + 1)
        found = []
        for old, new in zip(image, out, strict=True):
            where = inside(old)
            scaled = (new - new[where].mean()) / new[where].std(correction=0).clamp_min(1e-6)
            found.append(torch.where(where, scaled, old))
        return torch.stack(found)
