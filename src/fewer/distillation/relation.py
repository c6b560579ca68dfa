"""Distillation by maps and by relations between the images of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["as_map", "attention", "contrast", "probabilities", "relations", "similarities"]


def as_map(x: Tensor) -> Tensor:
    """[N, channels, H, W] of images or of tokens [N, tokens, channels], which become one row of pixels."""
    return x.transpose(1, 2)[:, :, None] if x.ndim == 3 else x


def attention(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Squared distance of normalised maps of the mean squared channel (Zagoruyko and Komodakis 2017, equation 2).

    Maps of different resolution are brought to the smaller one by means over areas. Mean over images and positions, as
    the paper divides its weight by the number of both; sum over the maps.

    Examples
    --------
    >>> x = torch.rand(2, 3, 4, 4)
    >>> float(attention([x], [5 * x])) < 1e-9
    True
    """
    total = student[0].new_zeros(())
    for one, other in zip(student, teacher, strict=True):
        a, b = (as_map(x).square().mean(1, keepdim=True) for x in (one, other))
        size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
        a, b = (F.normalize(F.adaptive_avg_pool2d(x, size).flatten(1)) for x in (a, b))
        total = total + (a - b).square().mean()
    return total


def _distances(x: Tensor) -> Tensor:
    square = (x[:, None] - x[None]).square().sum(2)
    # the root has no gradient at 0, where an image meets itself
    return square.clamp(min=1e-12).sqrt() * (1 - torch.eye(len(x), device=x.device))


def _angles(x: Tensor) -> Tensor:
    """Cosine at image j between i and k, for all three."""
    way = F.normalize(x[None] - x[:, None], dim=2)
    return torch.einsum("jid,jkd->jik", way, way)


def relations(student: Tensor, teacher: Tensor, distance: float = 25.0, angle: float = 50.0) -> Tensor:
    """Distances between images, in units of their mean, and angles in triples (RKD, arXiv 1904.05068, eq. 6 and 9).

    Both by the Huber loss, with the weights of the paper.
    """

    def scaled(x: Tensor) -> Tensor:
        found = _distances(x)
        return found / (found.sum() / max(1, len(x) * (len(x) - 1))).clamp(min=1e-12)

    far = F.smooth_l1_loss(scaled(student), scaled(teacher))
    return distance * far + angle * F.smooth_l1_loss(_angles(student), _angles(teacher))


def similarities(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Squared distance of the normalised Gram matrices of a batch (SP, arXiv 1907.09682, equation 4).

    Divided by the square of the batch; sum over the maps.
    """
    total = student[0].new_zeros(())
    for one, other in zip(student, teacher, strict=True):
        a, b = (F.normalize(x.flatten(1) @ x.flatten(1).T) for x in (one, other))
        total = total + (a - b).square().sum() / len(a) ** 2
    return total


def probabilities(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of the probabilities that an image picks another by cosine (PKT, arXiv 1803.10837, equations 4 to 7)."""

    def picks(x: Tensor) -> Tensor:
        near = (1 + F.normalize(x) @ F.normalize(x).T) / 2
        near = near * (1 - torch.eye(len(x), device=x.device))
        return near / near.sum(1, keepdim=True).clamp(min=1e-12)

    a, b = picks(student), picks(teacher)
    return (b * ((b + 1e-12).log() - (a + 1e-12).log())).sum(1).mean()


def contrast(student: Tensor, teacher: Tensor, labels: Tensor | None = None, temperature: float = 0.1) -> Tensor:
    """Tell an image's own teacher vector from those of other images, and the other way round (after CRD).

    Contrastive representation distillation (arXiv 1910.10699) draws its negatives from a memory of the whole data set;
    here the batch gives them, which needs no memory, and both vectors must already be of one length. Images of the same
    label are no negatives of each other.

    Parameters
    ----------
    student, teacher
        Projected vectors [N, D].
    labels
        [N], or None, where all other images are negatives.
    temperature
        Of the softmax over the batch.
    """
    scores = F.normalize(student) @ F.normalize(teacher).T / temperature
    if labels is not None:
        same = (labels[:, None] == labels[None]) & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        scores = scores.masked_fill(same, -torch.inf)
    own = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
