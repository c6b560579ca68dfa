"""What makes embeddings of one person alike: the batch-all triplet loss and cross-entropy of cosines, part by part."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["class_loss", "triplet_loss"]


def triplet_loss(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> tuple[Tensor, Tensor]:
    """Batch-all triplet loss (Hermans et al., 2017), for every part, averaged over triplets that are not zero.

    Parameters
    ----------
    embeddings
        Shape (sequences, channels, parts).
    labels
        Identities, (sequences,).
    margin
        By which another person must be farther away.

    Returns
    -------
    loss, hard
        Mean over parts; share of triplets that are not zero.

    Examples
    --------
    >>> x = torch.tensor([0.0, 0.0, 0.1, 0.1])[:, None, None]
    >>> loss, hard = triplet_loss(x, torch.tensor([0, 0, 1, 1]))
    >>> round(loss.item(), 3), hard.item()
    (0.1, 1.0)
    """
    parts = embeddings.permute(2, 0, 1)
    squares = (parts[:, :, None] - parts[:, None]).square().sum(3)
    distances = squares.clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels[None, :]
    mine = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    # anchor, positive, negative
    gaps = margin + distances[:, :, :, None] - distances[:, :, None, :]
    valid = (mine[:, :, None] & ~same[:, None, :])[None]
    losses = torch.where(valid, gaps.clamp(min=0), gaps.new_zeros(()))
    counts = (losses > 0).sum((1, 2, 3))
    loss = (losses.sum((1, 2, 3)) / counts.clamp(min=1)).mean()
    return loss, counts.sum() / (valid.sum() * len(parts)).clamp(min=1)


def class_loss(scores: Tensor, labels: Tensor, scale: float = 16.0, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy of cosines (sequences, classes, parts) to identities, every part for itself."""
    return F.cross_entropy(scores * scale, labels[:, None].expand(-1, scores.shape[2]), label_smoothing=smoothing)
