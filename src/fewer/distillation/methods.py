"""The table of distillation methods: what is added to the loss of a student."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.methods import Method, MethodTable
from fewer.distillation.answers import Answer
from fewer.distillation.relation import as_map, attention, contrast, probabilities, relations, similarities
from fewer.distillation.response import correlation, decoupled, soft_labels, standardised

__all__ = ["METHODS", "Distillation"]


class Distillation(nn.Module):
    """A loss between a student and a teacher, perhaps with parameters of its own.

    Parameters
    ----------
    student, teacher
        Answers to an example, for the shapes.
    """

    def __init__(self, student: Answer, teacher: Answer) -> None:
        super().__init__()
        if student.logits.shape[1:] != teacher.logits.shape[1:]:
            raise FewerError(
                f"the teacher gives {teacher.logits.shape[1]} scores and the student {student.logits.shape[1]}; both "
                "must know the same classes"
            )

    def forward(self, student: Answer, teacher: Answer, labels: Tensor | None = None) -> Tensor:
        """The loss of a batch, a scalar.

        Parameters
        ----------
        student, teacher
            Answers to the same images.
        labels
            [N], where they are known.
        """
        raise NotImplementedError


def _maps(student: Answer, teacher: Answer) -> tuple[list[Tensor], list[Tensor]]:
    """The maps that both have, from the last one back."""
    count = min(len(student.features), len(teacher.features))
    if not count:
        raise FewerError("the student or the teacher has no maps on the way to compare; use kd or another method")
    return student.features[-count:], teacher.features[-count:]


def _vectors(student: Answer, teacher: Answer) -> tuple[Tensor, Tensor]:
    if student.embedding is None or teacher.embedding is None:
        raise FewerError("the student or the teacher has no last layer to compare inputs of; use kd or another method")
    return student.embedding, teacher.embedding


def _of(loss: Callable[[Answer, Answer, Tensor | None], Tensor]) -> type[Distillation]:
    """A method that is nothing but a function."""

    class Plain(Distillation):
        def forward(self, student: Answer, teacher: Answer, labels: Tensor | None = None) -> Tensor:
            return loss(student, teacher, labels)

    return Plain


class Hints(Distillation):
    """Squared error of the student's maps, projected by a 1 x 1 convolution (FitNets, arXiv 1412.6550, equation 3).

    The paper trains hints first and soft labels afterwards; here both go together, over all common maps. Errors are
    divided by the mean square of the teacher's map.
    """

    def __init__(self, student: Answer, teacher: Answer) -> None:
        super().__init__(student, teacher)
        pairs = zip(*_maps(student, teacher), strict=True)
        self.project = nn.ModuleList(nn.Conv2d(as_map(a).shape[1], as_map(b).shape[1], 1) for a, b in pairs)

    def forward(self, student: Answer, teacher: Answer, labels: Tensor | None = None) -> Tensor:
        """Mean over the maps."""
        total = student.logits.new_zeros(())
        for project, a, b in zip(self.project, *_maps(student, teacher), strict=True):
            got, wanted = project(as_map(a)), as_map(b)
            if got.shape[2:] != wanted.shape[2:]:
                got = F.interpolate(got, wanted.shape[2:], mode="nearest")
            total = total + (got - wanted).square().mean() / wanted.square().mean().clamp(min=1e-12)
        return total / len(self.project)


class Contrast(Distillation):
    """See :func:`~fewer.distillation.relation.contrast`; both vectors are projected to 64 numbers."""

    def __init__(self, student: Answer, teacher: Answer) -> None:
        super().__init__(student, teacher)
        a, b = _vectors(student, teacher)
        self.student, self.teacher = nn.Linear(a.shape[1], 64), nn.Linear(b.shape[1], 64)

    def forward(self, student: Answer, teacher: Answer, labels: Tensor | None = None) -> Tensor:
        """The contrastive loss of a batch."""
        a, b = _vectors(student, teacher)
        return contrast(self.student(a), self.teacher(b), labels)


class Mutual(Distillation):
    """Two networks learn from labels and from each other (Zhang et al. 2018, arXiv 1706.00384, equations 4 to 6).

    The teacher must be in training: its own cross-entropy and its distance from the student are part of the loss. Each
    sees the other's probabilities as fixed. Without labels only the distances are left.
    """

    def forward(self, student: Answer, teacher: Answer, labels: Tensor | None = None) -> Tensor:
        """Loss of both."""
        loss = soft_labels(student.logits, teacher.logits.detach(), 1.0)
        if teacher.logits.requires_grad:
            loss = loss + soft_labels(teacher.logits, student.logits.detach(), 1.0)
            if labels is not None:
                loss = loss + F.cross_entropy(teacher.logits, labels)
        return loss


class Itself(Distillation):
    """Early maps learn to classify, and to answer as the end does (self-distillation, arXiv 1905.08094).

    Each map but the last has a linear classifier on its channel means; the paper puts small convolutional heads there.
    No teacher is asked: its answer is not looked at.
    """

    def __init__(self, student: Answer, teacher: Answer) -> None:
        super().__init__(student, teacher)
        maps = self._early(student)
        classes = student.logits.shape[1]
        self.heads = nn.ModuleList(nn.Linear(as_map(x).shape[1], classes) for x in maps)

    @staticmethod
    def _early(student: Answer) -> list[Tensor]:
        if len(student.features) < 2:
            raise FewerError("self-distillation needs maps on the way; this student has too few")
        return student.features[:-1]

    def forward(self, student: Answer, teacher: Answer, labels: Tensor | None = None) -> Tensor:
        """Mean over the heads."""
        total = student.logits.new_zeros(())
        for head, x in zip(self.heads, self._early(student), strict=True):
            scores = head(as_map(x).mean((2, 3)))
            total = total + soft_labels(scores, student.logits.detach(), 3.0)
            if labels is not None:
                total = total + F.cross_entropy(scores, labels)
        return total / len(self.heads)


class Standardised(Distillation):
    """See :func:`~fewer.distillation.response.standardised`; nine times, as in its paper."""

    def __init__(self, student: Answer, teacher: Answer) -> None:
        super().__init__(student, teacher)
        if student.logits.shape[1] < 3:
            raise FewerError(
                "logit-standardisation needs three classes or more: of two scores it keeps which one is larger, and "
                "nothing to learn from; use kd"
            )

    def forward(self, student: Answer, teacher: Answer, labels: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        return 9 * standardised(student.logits, teacher.logits)


METHODS: MethodTable[Callable[[Answer, Answer], Distillation]] = MethodTable(
    "distillation method",
    [
        Method("kd", _of(lambda s, t, y: soft_labels(s.logits, t.logits)), "soft labels", "Hinton et al. 2015"),
        Method(
            "dkd", _of(lambda s, t, y: decoupled(s.logits, t.logits, y)), "soft labels in two parts", "DKD (CVPR 2022)"
        ),
        Method(
            "logit-standardisation",
            Standardised,
            "soft labels of standardised scores",
            "Sun et al. (CVPR 2024)",
        ),
        Method(
            "dist",
            _of(lambda s, t, y: correlation(s.logits, t.logits)),
            "correlation within images and classes",
            "DIST (NeurIPS 2022)",
        ),
        Method("fitnets", Hints, "maps through a learnt projection", "FitNets (ICLR 2015)", ("maps", "parameters")),
        Method(
            "attention-transfer",
            _of(lambda s, t, y: 1000 * attention(*_maps(s, t)) / 2),
            "where maps are large",
            "Zagoruyko and Komodakis (ICLR 2017)",
            ("maps",),
        ),
        Method(
            "rkd",
            _of(lambda s, t, y: relations(*_vectors(s, t))),
            "distances and angles",
            "RKD (CVPR 2019)",
            ("vectors",),
        ),
        Method(
            "similarity-preserving",
            _of(lambda s, t, y: 3000 * similarities(*(m[-1:] for m in _maps(s, t)))),
            "similarities of images in a batch",
            "Tung and Mori (ICCV 2019)",
            ("maps",),
        ),
        Method(
            "pkt",
            _of(lambda s, t, y: 100 * probabilities(*_vectors(s, t))),
            "who is near whom",
            "PKT (ECCV 2018)",
            ("vectors",),
        ),
        Method("crd", Contrast, "contrast of images in a batch", "after CRD (ICLR 2020)", ("vectors", "parameters")),
        Method("mutual", Mutual, "student and teacher learn together", "DML (CVPR 2018)", ("trained teacher",)),
        Method(
            "self", Itself, "early maps learn from the end", "BYOT (ICCV 2019)", ("maps", "parameters", "no teacher")
        ),
    ],
)
"""``run(student, teacher)`` makes the loss from answers to an example; it is added to the cross-entropy."""
