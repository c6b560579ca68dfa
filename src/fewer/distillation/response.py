"""Distillation by scores: a student learns the probabilities that its teacher gives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["correlation", "decoupled", "soft_labels", "standardised"]


def soft_labels(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 KL(teacher || student) of softened probabilities (Hinton et al. 2015, section 2).

    Parameters
    ----------
    student, teacher
        Scores [N, classes].
    temperature
        T, by which scores are divided.

    Examples
    --------
    >>> scores = torch.tensor([[1.0, 2.0]])
    >>> float(soft_labels(scores, scores))
    0.0
    """
    wanted, got = F.log_softmax(teacher / temperature, 1), F.log_softmax(student / temperature, 1)
    return temperature**2 * F.kl_div(got, wanted, reduction="batchmean", log_target=True)


def decoupled(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None = None,
    temperature: float = 4.0,
    target: float = 1.0,
    others: float = 2.0,
) -> Tensor:
    """Soft labels in two parts with weights of their own (DKD, arXiv 2203.08679, equation 7).

    The first part is the probability of the label against all others, the second the distribution among the others.
    The paper tunes the second weight for each pair of networks; 2 is chosen here.

    Parameters
    ----------
    student, teacher
        Scores [N, classes], of at least two classes.
    labels
        [N]; those of the teacher where None.
    temperature, target, others
        T, and the weights of both parts.
    """
    labels = teacher.argmax(1) if labels is None else labels
    is_label = F.one_hot(labels, student.shape[1]).bool()
    got, wanted = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)

    def binary(log: Tensor) -> Tensor:
        inside = log[is_label]
        outside = log.masked_fill(is_label, -torch.inf).logsumexp(1)
        return torch.stack([inside, outside], 1)

    def rest(scores: Tensor) -> Tensor:
        left = scores[~is_label].reshape(len(scores), -1)
        return F.log_softmax(left / temperature, 1)

    first = F.kl_div(binary(got), binary(wanted), reduction="batchmean", log_target=True)
    second = F.kl_div(rest(student), rest(teacher), reduction="batchmean", log_target=True)
    return temperature**2 * (target * first + others * second)


def standardised(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Soft labels of scores with mean 0 and deviation 1 per image (logit standardisation, arXiv 2403.01427, alg. 1).

    The student need not reach the teacher's magnitudes, only its ranking and proportions. The paper weighs it by 9
    beside the cross-entropy; the weight is left to the caller here.
    """

    def plain(scores: Tensor) -> Tensor:
        return (scores - scores.mean(1, keepdim=True)) / (scores.std(1, keepdim=True) + 1e-7)

    return soft_labels(plain(student), plain(teacher), temperature)


def correlation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """1 - Pearson's correlation of probabilities, within images and within classes (DIST, arXiv 2205.10536, eq. 10).

    Both parts have weight 1, times the square of the temperature. (The paper's own settings weigh them by 2.)
    """
    a, b = (F.softmax(scores / temperature, 1) for scores in (student, teacher))

    def apart(x: Tensor, y: Tensor) -> Tensor:
        x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
        return 1 - F.cosine_similarity(x, y, 1).mean()

    return temperature**2 * (apart(a, b) + apart(a.T, b.T))
