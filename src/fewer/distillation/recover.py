"""The training loop of a recovery: blocks first, then the whole model; it stops in time and keeps the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.distillation.blocks import Block, block_errors, block_outputs
from fewer.distillation.losses import output_error
from fewer.distortion.outputs import Reference
from fewer.models.running import Forward, call, evaluating
from fewer.quantize.activations import rounding_inputs_of
from fewer.training.average import Average
from fewer.training.checkpoint import Lesson, restore, store
from fewer.training.constrained import Constrained, Held

__all__ = ["Course", "Pair", "has_fast_bf16", "teach"]

_WARM_UP = 0.05  # of the course
_STORE_EVERY = 30.0  # seconds; a checkpoint of a large model takes one or two
_EVALUATING = 0.12  # of the time, at most
_UNSTABLE = 10  # steps in a row without a finite loss


@dataclass(frozen=True)
class Course:
    """How a student is taught.

    Attributes
    ----------
    seconds, steps
        Where the course ends: after a time, or a number of steps; exactly one is given. Only steps are deterministic,
        since how many of them fit into a time is up to the machine.
    batch
        Images per step.
    rate
        Size of a step of Adam, relative to the root mean square of the parameter that takes it.
    alone
        Share of the course in which every block learns from its own error only. After it, errors flow through the
        whole model.
    blocks
        Weight of the mean error of the blocks beside that of the output.
    evaluations
        How often the student is examined; fewer where that would take more than an eighth of the time.
    mixed
        Compute in bf16 where that loses little (weights and optimiser stay fp32).

    Examples
    --------
    >>> Course(steps=10).batch
    4
    """

    seconds: float | None = None
    steps: int | None = None
    batch: int = 4
    rate: float = 5e-4
    alone: float = 0.8
    blocks: float = 1.0
    evaluations: int = 10
    mixed: bool = False

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            raise FewerError("a recovery ends after a time or after a number of steps; give one of the two")
        if self.steps is not None and self.steps < 1:
            raise FewerError(f"the number of steps must be at least 1; got {self.steps}")
        if self.batch < 1:
            raise FewerError(f"the number of images per step must be at least 1; got {self.batch}")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise FewerError(f"the learning rate must be more than 0; got {self.rate:g}")
        if not (0 <= self.alone <= 1 and math.isfinite(self.blocks) and self.blocks >= 0):
            raise FewerError("the share of the course for single blocks lies between 0 and 1, their weight above 0")

    def rate_at(self, part: float) -> float:
        """Learning rate after a share of the course: a short rise, then half a cosine down to nothing.

        Examples
        --------
        >>> course = Course(steps=10, rate=1.0)
        >>> course.rate_at(0.05), round(course.rate_at(1.0), 6)
        (1.0, 0.0)
        """
        if part < _WARM_UP:
            return self.rate * (0.1 + 0.9 * part / _WARM_UP)
        return self.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (part - _WARM_UP) / (1 - _WARM_UP))))


@dataclass(frozen=True, eq=False)
class Pair:
    """Teacher and student.

    Attributes
    ----------
    teacher
        The dense model.
    student
        The compressed one, which is changed in place.
    held
        Mask and stored precision of each layer of the student.
    blocks
        Parts whose outputs are compared; see :func:`~fewer.distillation.blocks.find_blocks`.
    reference
        Scale of the output error.
    activations
        Layers of the student that see rounded inputs when it is used, by precision.
    frozen
        Modules of the student that stay as they are.
    forward
        ``forward(model, batch)``.
    """

    teacher: nn.Module
    student: nn.Module
    held: Mapping[str, Held]
    blocks: Sequence[Block]
    reference: Reference
    activations: Mapping[str, Sequence[nn.Module]] = field(default_factory=dict)
    frozen: Sequence[str] = ()
    forward: Forward | None = None


def has_fast_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices faster than fp32 ones.

    Examples
    --------
    >>> has_fast_bf16() in (True, False)
    True
    """
    probes = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(probe() for probe in probes if probe is not None)


def teach(
    pair: Pair,
    course: Course,
    draw: Callable[[int], Tensor],
    examine: Callable[[nn.Module], float],
    *,
    lesson: Lesson | None = None,
    checkpoint: Path | None = None,
    key: str = "",
    tell: Callable[[Lesson], None] = lambda lesson: None,
    clock: Callable[[], float] = perf_counter,
) -> Lesson:
    """Train the student, and leave the best state that it had in it.

    Parameters
    ----------
    pair
        Who learns from whom.
    course
        How, and how long.
    draw
        ``draw(step)``: the batch of a step; the same for the same step.
    examine
        ``examine(student)``: an error on images that are never drawn; the least counts.
    lesson
        What the student learnt before the first step, in another way: its best state is the one that it has now. Its
        seconds are part of the course's.
    checkpoint
        A file that is written now and then and on Ctrl-C, and read first where it is there.
    key
        Names this training; a checkpoint of another one is refused.
    tell
        Called after every step.
    clock
        Seconds.

    Returns
    -------
    Lesson
        What happened. When nothing was better than the start, ``best_step`` is 0 and the student is as it was.

    Raises
    ------
    FewerError
        When the error is no longer finite, or the checkpoint cannot be used.
    """
    student = pair.student.eval()  # BatchNorm keeps its statistics, dropout is off
    weights = Constrained(student, pair.held, pair.frozen)
    optimiser, average = _optimiser(weights), Average(weights)
    lesson = lesson or Lesson()
    lesson.began = lesson.seconds
    with rounding_inputs_of(pair.activations):
        resumed = checkpoint is not None and checkpoint.exists()
        if checkpoint is not None and resumed:
            lesson = restore(checkpoint, key, weights, average, optimiser)
        sitting = _Sitting(pair, course, weights, average, optimiser, lesson, clock)
        if not resumed and lesson.history and checkpoint is not None:
            store(checkpoint, key, lesson, weights, average, optimiser)
        elif not resumed and not lesson.history:
            sitting.examine(examine)
        sitting.run(draw, examine, checkpoint, key, tell)
    student.load_state_dict(lesson.best)
    student.requires_grad_(False)
    return lesson


def _optimiser(weights: Constrained) -> torch.optim.Adam:
    groups = [
        {"params": [parameter], "scale": scale}
        for parameter, scale in zip(weights.parameters(), weights.scales(), strict=True)
    ]
    return torch.optim.Adam(groups, lr=1.0, betas=(0.9, 0.98), fused=True)


class _Sitting:
    """One process's part of a course."""

    def __init__(
        self,
        pair: Pair,
        course: Course,
        weights: Constrained,
        average: Average,
        optimiser: torch.optim.Adam,
        lesson: Lesson,
        clock: Callable[[], float],
    ) -> None:
        self.pair, self.course, self.weights, self.optimiser, self.lesson = pair, course, weights, optimiser, lesson
        self.average, self.clock = average, clock
        self.before, self.began = lesson.seconds, clock()
        self.slowest = 0.0  # seconds of the slowest step
        self.examining = 0.0  # seconds of an examination
        self.stored = self.began
        self.unstable = 0
        self.whole = True  # whether the weights are those of a finished step
        self.comparable = True  # whether each block of the student gives what its twin gives, in shape

    def now(self) -> float:
        self.lesson.seconds = self.before + self.clock() - self.began
        return self.lesson.seconds

    def part(self) -> float:
        """Share of the course that is behind, 0 to 1."""
        if self.course.steps is not None:
            return min(1.0, self.lesson.step / self.course.steps)
        assert self.course.seconds is not None
        start = self.lesson.began
        return min(1.0, max(0.0, self.now() - start) / max(1e-9, self._last() - start))

    def _last(self) -> float:
        """Seconds at which steps must end, so that the last examination is over in time."""
        assert self.course.seconds is not None
        return max(1e-9, self.course.seconds - 1.1 * self.examining)

    def is_over(self) -> bool:
        if self.course.steps is not None:
            return self.lesson.step >= self.course.steps
        return self.now() + self.slowest >= self._last()

    def examine(self, examine: Callable[[nn.Module], float]) -> None:
        began = self.clock()
        with self.average.installed():
            error = examine(self.pair.student)
            self.examining = max(self.examining, self.clock() - began)
            self.now()
            self.lesson.note(error, self.pair.student)

    def examinations(self) -> int:
        """How many examinations the rest of the course is worth."""
        if self.course.steps is not None:
            return min(self.course.evaluations, self.course.steps)
        assert self.course.seconds is not None
        return max(1, min(self.course.evaluations, int(_EVALUATING * self.course.seconds / max(self.examining, 1e-9))))

    def run(
        self,
        draw: Callable[[int], Tensor],
        examine: Callable[[nn.Module], float],
        checkpoint: Path | None,
        key: str,
        tell: Callable[[Lesson], None],
    ) -> None:
        try:
            while not self.is_over():
                began = self.clock()
                before, count = self.part(), self.examinations()
                self._step(draw(self.lesson.step), before)
                self.slowest = max(self.slowest, self.clock() - began) if self.lesson.step > 1 else 0.0
                if not self.is_over() and int(self.part() * count) > int(before * count):
                    self.examine(examine)
                if checkpoint is not None and self.clock() - self.stored > _STORE_EVERY:
                    self._store(checkpoint, key)
                tell(self.lesson)
            if self.lesson.history[-1]["step"] != self.lesson.step:
                self.examine(examine)
                tell(self.lesson)
        except KeyboardInterrupt:
            if checkpoint is not None and self.whole:
                self._store(checkpoint, key)
            raise

    def _store(self, checkpoint: Path, key: str) -> None:
        self.now()
        store(checkpoint, key, self.lesson, self.weights, self.average, self.optimiser)
        self.stored = self.clock()

    def _step(self, images: Tensor, part: float) -> None:
        alone = self.comparable and part < self.course.alone
        loss = self._loss(images, alone)
        if alone and not self.comparable:  # blocks of other shapes have nothing of their own to learn from
            loss = self._loss(images, False)
        if not bool(torch.isfinite(loss)):
            self.unstable += 1
            if self.unstable >= _UNSTABLE:
                raise FewerError("the error of the model in training is no longer finite; give a smaller --rate")
            self.lesson.step += 1
            return
        self.unstable = 0
        loss.backward()
        self.whole = False
        self.weights.collect()
        for group in self.optimiser.param_groups:
            group["lr"] = self.course.rate_at(part) * group["scale"]
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.weights.install()
        self.lesson.step += 1
        self.average.follow(self.lesson.step)
        self.whole = True

    def _loss(self, images: Tensor, alone: bool) -> Tensor:
        pair, blocks = self.pair, self.pair.blocks if self.course.blocks or alone else ()

        def half() -> Any:
            return torch.autocast("cpu", torch.bfloat16, enabled=self.course.mixed)

        with evaluating(pair.teacher), block_outputs(pair.teacher, blocks) as inside, half():
            wanted = call(pair.teacher, images, pair.forward)
        with torch.enable_grad(), block_errors(pair.student, blocks, inside, alone) as errors, half():
            got = call(pair.student, images, pair.forward)
            loss = output_error(pair.reference, wanted, got)
        self.comparable = self.comparable and len(errors) >= len(blocks)
        if errors:
            mean = torch.stack(errors).mean()
            loss = loss + (mean * len(errors) if alone else mean * self.course.blocks)
        return loss
