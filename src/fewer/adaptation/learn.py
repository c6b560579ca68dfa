"""One stage of training that all methods share: labelled streams, and a mean teacher on unlabelled images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.adaptation.choice import judge
from fewer.adaptation.problem import Batches, Pair, Problem, Work
from fewer.adaptation.settings import AdaptationSettings
from fewer.adaptation.style import UNKNOWN, Style
from fewer.training.average import Average
from fewer.training.callbacks import Callback
from fewer.training.history import Fit
from fewer.training.loop import Validation, fit

__all__ = [
    "Lesson",
    "Part",
    "Stream",
    "consistency",
    "device_of",
    "forget_graph",
    "known",
    "learn",
    "noisy",
    "ramp",
    "styled",
]


@dataclass(frozen=True)
class Stream:
    """Labelled images and what is done to their intensities."""

    pairs: Sequence[Pair]
    style: Style | None = None


@dataclass(frozen=True)
class Lesson:
    """What a stage learns from.

    Attributes
    ----------
    labelled
        Streams that share a batch.
    held
        Images that never train, in the look of the labelled ones.
    target
        Unlabelled images, for the teacher.
    consistency
        Largest weight; 0 has no teacher.
    strong
        What is done to the student's view of a target image.
    also_labelled
        Student and teacher agree on labelled images too.
    weights
        Of the scales of the labelled loss; and of the consistency.
    ease
        Share of the training over which the styles of labelled images come in, one image more after the other.
    """

    labelled: Sequence[Stream]
    held: Sequence[Pair]
    target: Sequence[Tensor] = ()
    consistency: float = 0.0
    strong: Style | None = None
    also_labelled: bool = False
    weights: tuple[float, ...] = (1.0,)
    agree: tuple[float, ...] = (1.0,)
    ease: float = 0.0


def ramp(part: float) -> float:
    """Factor of a consistency weight when a share of the training is over: ``exp(-5 (1 - part)^2)``.

    Examples
    --------
    >>> [round(ramp(part), 4) for part in (0.0, 0.5, 1.0)]
    [0.0067, 0.2865, 1.0]
    """
    return math.exp(-5 * (1 - min(1.0, part)) ** 2)


def noisy(images: Tensor, deviation: float) -> Tensor:
    """Add normal noise that is cut at two deviations."""
    return images + (torch.randn_like(images) * deviation).clamp(-2 * deviation, 2 * deviation)


def consistency(student: Sequence[Tensor], teacher: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted sum over scales of the mean squared difference of softmax outputs (HCR-MT, Li et al. 2021, eq. 3).

    Examples
    --------
    >>> one = [torch.zeros(1, 2, 4, 4)]
    >>> float(consistency(one, one, (1.0,)))
    0.0
    """
    total = torch.zeros((), device=student[0].device)
    for weight, a, b in zip(weights, student, teacher, strict=False):
        if weight:
            total = total + weight * (a.float().softmax(1) - b.float().softmax(1)).square().mean()
    return total


def styled(images: Tensor, masks: Tensor | None, style: Style | None, key: Sequence[int], share: float = 1.0) -> Tensor:
    """Apply a style to a share of the images of a batch; draws depend on the key alone."""
    if style is None:
        return images
    found = []
    for index, image in enumerate(images):
        rng = np.random.default_rng([*key, index])
        if share < 1 and rng.random() >= share:
            found.append(image)
            continue
        found.append(style(image, None if masks is None else masks[index, 0], rng))
    return torch.stack(found)


def known(outputs: Sequence[Tensor], masks: Tensor) -> tuple[list[Tensor], Tensor]:
    """Take voxels of unknown class out of a loss: there, scores become sure and right, so that nothing is learned.

    Examples
    --------
    >>> masks = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    >>> outputs, masks = known([torch.zeros(1, 2, 1, 2)], masks)
    >>> masks.tolist(), outputs[0][0, :, 0].tolist()
    ([[[[0, 0]]]], [[0.0, 30.0], [0.0, 0.0]])
    """
    unknown = masks == UNKNOWN
    if not unknown.any():
        return list(outputs), masks
    found = []
    for output in outputs:
        where = unknown
        if output.shape[2:] != masks.shape[2:]:
            where = F.interpolate(unknown.float(), output.shape[2:], mode="nearest-exact") > 0
        sure = torch.zeros_like(output)
        sure[:, 0] = 30.0
        found.append(torch.where(where, sure, output))
    return found, masks.masked_fill(unknown, 0)


def forget_graph(model: nn.Module) -> None:
    """Detach what modules keep of a forward pass, as DynUNet does with its heads, so that a model can be copied."""
    for module in model.modules():
        for kept in vars(module).values():
            if isinstance(kept, list):
                for index, value in enumerate(kept):
                    if isinstance(value, Tensor) and value.grad_fn is not None:
                        kept[index] = value.detach()


def device_of(model: nn.Module) -> torch.device:
    """Where a model is; styles change images in main memory, and the result goes there.

    Examples
    --------
    >>> device_of(nn.Linear(1, 1))
    device(type='cpu')
    """
    return next((p.device for p in model.parameters()), torch.device("cpu"))


class Part(Callback):
    """Knows how much of a training is over."""

    part = 0.0

    def before_step(self, fit: Fit) -> None:
        """Take it from the loop."""
        self.part = fit.part


def learn(
    problem: Problem,
    settings: AdaptationSettings,
    work: Work,
    lesson: Lesson,
    name: str,
    model: nn.Module,
    *,
    steps: int | None = None,
) -> Fit:
    """Train a model in place on a lesson, and leave the weights in it that the unlabelled choice prefers.

    Parameters
    ----------
    settings
        Those of the task, which extend both :class:`AdaptationSettings` and the loop's.
    name
        Of the stage: of its progress bar and of its checkpoint.
    steps
        In place of those of the settings.
    """
    step = _Step(problem, settings, lesson, model)
    done = fit(
        model,
        step.losses,
        settings,  # pyright: ignore[reportArgumentType] (the settings of a task extend the loop's)
        work.accelerator,
        steps=steps,
        name=name,
        progress=work.progress,
        checkpoint=work.checkpoint(name),
        average=step.average,
        callbacks=[step.clock],
        validate=Validation(lambda net: judge(problem, lesson.held, net), name="choice"),
    )
    done.load_best(model)
    forget_graph(model)
    model.eval()
    return done


class _Step:
    """What a step of a lesson draws, and the losses that it gives."""

    def __init__(self, problem: Problem, settings: AdaptationSettings, lesson: Lesson, model: nn.Module) -> None:
        loop: Any = settings  # the settings of a task extend the loop's
        self.problem, self.lesson, self.noise, self.seed = problem, lesson, settings.noise, loop.seed
        self.device = device_of(model)
        self.share = max(1, loop.batch // len(lesson.labelled))
        self.draws = [problem.sampler(stream.pairs, index) for index, stream in enumerate(lesson.labelled)]
        self.unlabelled: Batches | None = None
        self.average: Average | None = None
        self.clock = Part()
        if lesson.target and lesson.consistency:
            self.unlabelled = problem.sampler([(image, None) for image in lesson.target], 50)
            self.average = Average(model, settings.teacher_decay)
            self.average.teacher()  # made before the first step, while nothing hangs on a graph

    def losses(self, net: nn.Module, step: int) -> dict[str, Tensor]:
        """The loss on labels, and where there is a teacher that of agreeing with it."""
        x, y = (part.to(self.device) for part in self._labelled(step))
        outputs = self.problem.scales(net(x))
        losses = {"labelled": self.problem.loss(*known(outputs, y), self.lesson.weights)}
        if self.unlabelled is not None and self.average is not None:
            seen = self.unlabelled(step)[0]
            strong = styled(seen, None, self.lesson.strong, (self.seed, 22, step)).to(self.device)
            pairs = [(self.problem.scales(net(strong)), seen.to(self.device))]
            if self.lesson.also_labelled:
                pairs.append((outputs, x))
            losses["consistency"] = self._disagreement(pairs, self.average.teacher())
        return losses

    def _labelled(self, step: int) -> tuple[Tensor, Tensor]:
        """Images and masks of all streams as one batch."""
        images, masks = [], []
        ease = self.lesson.ease
        share = min(1.0, self.clock.part / ease) if ease else 1.0
        for index, (draw, stream) in enumerate(zip(self.draws, self.lesson.labelled, strict=True)):
            x, y = draw(step)
            x, y = x[: self.share], y[: self.share]
            images.append(styled(x, y, stream.style, (self.seed, 21, step, index), share))
            masks.append(y)
        return torch.cat(images), torch.cat(masks)

    def _disagreement(self, pairs: Sequence[tuple[Sequence[Tensor], Tensor]], teacher: nn.Module) -> Tensor:
        """Of the student's outputs and the teacher's on the same images, which the teacher sees noisy."""
        agree = self.lesson.agree
        teacher.train(len(agree) > 1)  # some networks have several outputs in training only
        with torch.no_grad():
            answers = [self.problem.scales(teacher(noisy(clean, self.noise))) for _, clean in pairs]
        told = [consistency(mine, theirs, agree) for (mine, _), theirs in zip(pairs, answers, strict=True)]
        return self.lesson.consistency * ramp(self.clock.part) * torch.stack(told).mean()
