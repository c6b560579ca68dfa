"""Losses of translators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dice_ce", "edge_loss", "fooled", "patch_nce", "told_apart"]


def patch_nce(queries: Sequence[Tensor], keys: Sequence[Tensor], temperature: float = 0.07) -> Tensor:
    """PatchNCE of CUT (Park et al. 2020, eq. 2): each position of the translation knows its own position of the input.

    For position s with query q_s and key k_s, unit vectors of one image: the mean over s of
    ``-log(exp(q_s k_s / t) / sum_j exp(q_s k_j / t))``, averaged over taps and images. Keys get no gradient.

    Parameters
    ----------
    queries, keys
        ``(batch, positions, size)`` for each tap.

    Examples
    --------
    >>> q = F.normalize(torch.eye(4)[None], dim=-1)
    >>> round(float(patch_nce([q], [q])), 4)
    0.0
    """
    total = torch.zeros((), device=queries[0].device)
    for q, k in zip(queries, keys, strict=True):
        scores = q @ k.detach().transpose(1, 2) / temperature
        wanted = torch.arange(q.shape[1], device=q.device).expand(q.shape[0], -1)
        total = total + F.cross_entropy(scores.flatten(0, 1), wanted.flatten())
    return total / len(queries)


def fooled(scores: Tensor) -> Tensor:
    """Least-squares loss of a generator: fakes should score 1."""
    return (scores - 1).square().mean()


def told_apart(real: Tensor, fake: Tensor) -> Tensor:
    """Least-squares loss of a discriminator: real ones score 1, fakes 0."""
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def edge_loss(image: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of Sobel gradient magnitudes, each scaled to mean 1, so that contrast may turn round.

    Examples
    --------
    >>> x = torch.rand(1, 1, 8, 8)
    >>> round(float(edge_loss(x, 1 - x)), 4)
    0.0
    """
    return (_edges(image) - _edges(other)).abs().mean()


def _edges(image: Tensor) -> Tensor:
    flat = image.reshape(-1, 1, *image.shape[-2:])
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], device=image.device)
    both = F.conv2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, kernel.T])[:, None])
    size = (both.square().sum(1) + 1e-6).sqrt()
    return size / size.mean((-2, -1), keepdim=True)


def dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Half Dice over the classes, half cross-entropy.

    Parameters
    ----------
    logits, target
        ``(batch, classes, *space)`` and class indices ``(batch, *space)``.

    Examples
    --------
    >>> target = torch.tensor([[[0, 1]]])
    >>> sure = 50 * (F.one_hot(target, 2).movedim(-1, 1).float() - 0.5)
    >>> round(float(dice_ce(sure, target)), 3)
    0.0
    """
    share = logits.softmax(1)
    one_hot = F.one_hot(target.long(), logits.shape[1]).movedim(-1, 1).to(share.dtype)
    axes = (0, *range(2, logits.ndim))
    dice = (2 * (share * one_hot).sum(axes) + 1e-5) / (share.square().sum(axes) + one_hot.square().sum(axes) + 1e-5)
    return 0.5 * (1 - dice.mean()) + 0.5 * F.cross_entropy(logits, target.long())
