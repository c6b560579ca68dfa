"""A classifier that learns from labels and from a teacher."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.data.preprocess import Preprocess
from fewer.distillation.answers import Answer, Points, listening, points_of
from fewer.distillation.methods import METHODS, Distillation
from fewer.distortion.outputs import output_tensors
from fewer.models.running import evaluating
from fewer.models.spec import LoadedModel, load_model
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.model import map_classes, open_classifier, output_count
from fewer.tasks.classify.settings import TrainSettings

__all__ = ["Taught", "check_distillation", "taught"]


_GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R 601), as a colour image is read for a network of one channel."""


class Taught(nn.Module):
    """A student with the loss that its teacher adds; called with images alone, it is the student.

    Losses come from a call of its own too, so that what wraps it (mixed precision, several processes) has its effect.

    Attributes
    ----------
    student
        The model that is trained and kept.
    method
        The loss, perhaps with parameters that learn too.
    partner
        A teacher that learns too; None where the teacher stays as it is.
    lesson
        From images, labels and smoothing to losses by name.
    """

    lesson: Callable[[Tensor, Tensor, float], dict[str, Tensor]]

    def __init__(self, student: nn.Module, method: Distillation, partner: nn.Module | None) -> None:
        super().__init__()
        self.student, self.method, self.partner = student, method, partner

    def forward(self, images: Tensor, labels: Tensor | None = None, smoothing: float = 0.0) -> Any:
        """Scores of the student; with labels, the losses by name."""
        return self.student(images) if labels is None else self.lesson(images, labels, smoothing)


@dataclass(frozen=True, eq=False)
class _Lesson:
    taught: Taught
    teacher: nn.Module | None
    points: tuple[Points, Points | None]
    as_teacher: Callable[[Tensor], Tensor]
    outputs: Tensor | None
    weight: float

    def __call__(self, images: Tensor, labels: Tensor, smoothing: float) -> dict[str, Tensor]:
        """Losses of a batch by name."""
        got = _answer(self.taught.student, self.points[0], images)
        wanted = got
        if self.teacher is not None and self.points[1] is not None:
            learns = self.taught.partner is not None
            with nullcontext() if learns else torch.no_grad():
                wanted = _answer(self.teacher, self.points[1], self.as_teacher(images), self.outputs)
        with torch.autocast(images.device.type, enabled=False):  # only the networks are in mixed precision
            told = self.taught.method(got.in_fp32(), wanted.in_fp32(), labels)
        return {
            "labels": F.cross_entropy(got.logits, labels, label_smoothing=smoothing),
            "teacher": self.weight * told,
        }


def check_distillation(settings: TrainSettings) -> None:
    """Refuse names and settings that do not fit each other, before anything is read.

    Raises
    ------
    FewerError
        For an unknown method, or one without the teacher that it needs.

    Examples
    --------
    >>> check_distillation(TrainSettings(distill="kd"))
    Traceback (most recent call last):
    fewer.core.errors.FewerError: the distillation method kd needs a teacher; give --teacher RUN
    """
    if settings.distill is None and settings.teacher is None:
        return
    method = settings.distill or METHODS.default
    alone = "no teacher" in METHODS[method].needs
    if settings.teacher is None and not alone:
        raise FewerError(f"the distillation method {method} needs a teacher; give --teacher RUN")
    if settings.teacher is not None and alone:
        raise FewerError(f"the distillation method {method} has no teacher; leave --teacher out")


def taught(
    loaded: LoadedModel, student: nn.Module, settings: TrainSettings, example: Tensor, data: ClassifyData
) -> Taught:
    """A student with its teacher's loss.

    Scores of the teacher are put into the order of the classes of the data; classes that these have not are left out.

    Raises
    ------
    FewerError
        When the teacher knows other classes, or the method cannot be used with these networks.
    """
    row = METHODS[settings.distill or METHODS.default]
    teacher: nn.Module | None = None
    outputs: Tensor | None = None
    as_teacher: Callable[[Tensor], Tensor] = _same
    learns = "trained teacher" in row.needs
    if settings.teacher is not None:
        found = load_model(settings.teacher)
        outputs = _outputs(found, data, example.device)
        as_teacher = _between(loaded.preprocess, found.preprocess)
        teacher = found.model.to(example.device).eval().requires_grad_(learns)
    with evaluating(student), torch.no_grad():
        points = points_of(student, example[:2])
        own = _answer(student, points, example[:2])
        theirs, other = None, own
        if teacher is not None:
            theirs = points_of(teacher, as_teacher(example[:2]))
            other = _answer(teacher, theirs, as_teacher(example[:2]), outputs)
    made = Taught(student, row.run(own, other).to(example.device), teacher if learns else None)
    made.lesson = _Lesson(made, teacher, (points, theirs), as_teacher, outputs, settings.distill_weight)
    return made


def _outputs(teacher: LoadedModel, data: ClassifyData, device: torch.device) -> Tensor | None:
    """Which output of a teacher each class of the data is; None where they are the same in the same order."""
    classes, count = len(data.classes), output_count(teacher)
    known = open_classifier(teacher) if count else None
    if known is None or (count != classes and not known.classes and not data.model_classes):
        raise FewerError(f"the teacher {teacher.name} gives {count} scores and the data have {classes} classes")
    mapped = map_classes(data, known)
    named = known.classes and not all(name.isdecimal() for name in (*known.classes, *data.classes))
    if named and mapped.how != "by name":
        raise FewerError(
            f"the teacher {teacher.name} knows other classes ({known.classes[0]}, ...) than the data "
            f"({data.classes[0]}, ...)"
        )
    if mapped.outputs.tolist() == list(range(count)):
        return None
    return torch.from_numpy(mapped.outputs.astype(np.int64)).to(device)


def _answer(model: nn.Module, points: Points, images: Tensor, outputs: Tensor | None = None) -> Answer:
    with listening(model, points) as heard:
        heard.logits = output_tensors(model(images))[0].float()
    if outputs is not None:
        heard.logits = heard.logits[:, outputs]
    return heard


def _same(images: Tensor) -> Tensor:
    return images


def _between(mine: Preprocess, theirs: Preprocess) -> Callable[[Tensor], Tensor]:
    """From a student's input to its teacher's: other mean and deviation, other size, grey or colours.

    Raises
    ------
    FewerError
        When the one has channels that cannot be made from the other's.
    """
    channels = mine.input_size[0], theirs.input_size[0]
    if channels[0] != channels[1] and set(channels) != {1, 3}:
        raise FewerError(f"the teacher sees {channels[1]} channels and the student {channels[0]}")

    def change(images: Tensor) -> Tensor:
        def column(values: tuple[float, ...]) -> Tensor:
            return images.new_tensor(values).reshape(1, -1, 1, 1)

        plain = images * column(mine.std) + column(mine.mean)
        if channels == (3, 1):
            plain = (plain * images.new_tensor(_GREY).reshape(1, -1, 1, 1)).sum(1, keepdim=True)
        if tuple(theirs.input_size[1:]) != tuple(images.shape[2:]):
            plain = F.interpolate(plain, tuple(theirs.input_size[1:]), mode="bilinear", antialias=True)
        return (plain - column(theirs.mean)) / column(theirs.std)  # one channel for three becomes three alike

    return _same if mine == theirs else change
