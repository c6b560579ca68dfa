"""Recovery of a compressed model by its dense twin: blocks first, then the whole model; the best state is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.distillation.answers import listening, points_of
from fewer.distillation.blocks import Block, block_errors, block_outputs
from fewer.distillation.losses import JudgesAny, output_error
from fewer.distillation.methods import METHODS
from fewer.distortion.outputs import Reference, output_tensors
from fewer.models.running import Forward, call, evaluating
from fewer.quantize.activations import rounding_inputs_of
from fewer.training.average import Average
from fewer.training.callbacks import Callback
from fewer.training.checkpoint import Checkpoint
from fewer.training.constrained import Constrained, Held
from fewer.training.history import Fit
from fewer.training.loop import NotFinite, Special, Validation, fit
from fewer.training.optimise import Optimiser
from fewer.training.schedule import Schedule
from fewer.training.settings import LoopSettings

__all__ = ["RecoverySettings", "TeacherStudent", "has_fast_bf16", "train_student"]

_WARM_UP = 0.05  # of the training
_STORE_EVERY = 30.0  # seconds; a checkpoint of a large model takes one or two
_NOT_HERE = {"parameters", "trained teacher", "no teacher"}  # the student alone is trained, and a twin is there
_UNSTABLE = 10  # steps in a row without a finite loss


@dataclass(frozen=True)
class RecoverySettings:
    """How a student is trained to answer as its teacher.

    Attributes
    ----------
    seconds, steps
        Where the training ends: after a time, or a number of steps; exactly one is given. Only steps are
        deterministic, since how many of them fit into a time is up to the machine.
    batch
        Images per step.
    learning_rate
        Size of a step of Adam, relative to the root mean square of the parameter that takes it.
    blocks_first
        Share of the training in which every block learns from its own error only. After it, errors flow through the
        whole model.
    block_weight
        Weight of the mean error of the blocks beside that of the output.
    validations
        How often the student is judged; fewer where that would take more than an eighth of the time.
    bf16
        Compute in bf16 where that loses little (weights and optimiser stay fp32).
    method
        A row of :data:`~fewer.distillation.methods.METHODS` whose loss, without labels, is added to the error of the
        output once errors flow through the whole model; for models that give scores. None adds nothing.

    Raises
    ------
    FewerError
        When a value makes no sense.

    Examples
    --------
    >>> RecoverySettings(steps=10).batch
    4
    >>> schedule = RecoverySettings(steps=10).schedule()
    >>> schedule.factor(0.05), round(schedule.factor(1.0), 6)
    (1.0, 0.0)
    """

    seconds: float | None = None
    steps: int | None = None
    batch: int = 4
    learning_rate: float = 5e-4
    blocks_first: float = 0.8
    block_weight: float = 1.0
    validations: int = 10
    bf16: bool = False
    method: str | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            raise FewerError("a recovery ends after a time or after a number of steps; give one of the two")
        if self.steps is not None and self.steps < 1:
            raise FewerError(f"the number of steps must be at least 1; got {self.steps}")
        if self.batch < 1:
            raise FewerError(f"the number of images per step must be at least 1; got {self.batch}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise FewerError(f"the learning rate must be more than 0; got {self.learning_rate:g}")
        if not (0 <= self.blocks_first <= 1 and math.isfinite(self.block_weight) and self.block_weight >= 0):
            raise FewerError("the share of the training for single blocks lies between 0 and 1, their weight above 0")
        if self.method is not None and (needs := _NOT_HERE & set(METHODS[self.method].needs)):
            able = ", ".join(name for name, row in METHODS.items() if not _NOT_HERE & set(row.needs))
            raise FewerError(
                f"a recovery cannot use {self.method}, which needs: {', '.join(sorted(needs))}; use {able}"
            )

    def schedule(self) -> Schedule:
        """The rate: a short rise, then half a cosine down to nothing."""
        return Schedule(self.steps, self.seconds, "cosine", warm_up=_WARM_UP)


@dataclass(frozen=True, eq=False)
class TeacherStudent:
    """A dense model, and the compressed one that learns from it.

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
        Scale of the output error, or a task's own error; see :func:`~fewer.distillation.losses.output_error`.
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
    reference: Reference | JudgesAny
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


def train_student(
    models: TeacherStudent,
    settings: RecoverySettings,
    draw: Callable[[int], Any],
    validate: Callable[[nn.Module], float],
    *,
    start: Fit | None = None,
    checkpoint: Path | None = None,
    key: str = "",
    callbacks: Sequence[Callback] = (),
    clock: Callable[[], float] = perf_counter,
) -> Fit:
    """Train the student, and leave the best state that it had in it.

    Parameters
    ----------
    models
        Who learns from whom.
    settings
        How, and how long.
    draw
        ``draw(step)``: the batch of a step; the same for the same step.
    validate
        ``validate(student)``: an error on images that are never drawn; the least counts.
    start
        What the student learnt before the first step, in another way: its best state is the one that it has now. Its
        seconds are part of the settings'.
    checkpoint
        A file that is written now and then and on Ctrl-C, and read first where it is there.
    key
        Names this training; a checkpoint of another one is refused.
    callbacks
        See :class:`~fewer.training.callbacks.Callback`.
    clock
        Seconds.

    Returns
    -------
    Fit
        What happened; a score is an error. When nothing was better than the start, ``best_step`` is 0 and the student
        is as it was.

    Raises
    ------
    FewerError
        When the error is no longer finite, or the checkpoint cannot be used.
    """
    student = models.student
    weights = Constrained(student, models.held, models.frozen)
    objective = _BlockObjective(models, settings, draw)
    device = next(student.parameters()).device
    try:
        with rounding_inputs_of(models.activations):
            done = fit(
                student,
                objective,
                LoopSettings(device="cpu" if device.type == "cpu" else "auto"),
                schedule=settings.schedule(),
                optimiser=Optimiser("relative-adam", settings.learning_rate, decay=0.0),
                # the start is judged too, so that a training that only distorts gives the student back as it was
                name="recover",
                validate=Validation(validate, "lower", "error", at_start=True, times=settings.validations),
                constraints=weights,
                average=Average(weights, buffers=False),
                checkpoint=checkpoint and Checkpoint(checkpoint, key, _STORE_EVERY, at_validations=False),
                callbacks=[objective, *callbacks],
                special=Special(start, train_mode=False, tolerate=_UNSTABLE - 1, clock=clock),
            )
    except NotFinite:
        raise FewerError(
            "the error of the model in training is no longer finite; give a smaller --learning-rate"
        ) from None
    done.load_best(student)
    student.requires_grad_(False)
    return done


class _BlockObjective(Callback):
    """Error of every block on its own at first, and then that of the output with all blocks in line."""

    def __init__(self, models: TeacherStudent, settings: RecoverySettings, draw: Callable[[int], Any]) -> None:
        self.models, self.settings, self.draw = models, settings, draw
        self.part = 0.0
        self.lesson: _Lesson | None = None
        self.comparable = True  # whether each block of the student gives what its twin gives, in shape

    def before_step(self, fit: Fit) -> None:
        self.part = fit.part

    def __call__(self, student: nn.Module, step: int) -> Tensor:
        images = self.draw(step)
        alone = self.comparable and self.part < self.settings.blocks_first
        loss = self._loss(student, images, alone)
        if alone and not self.comparable:  # blocks of other shapes have nothing of their own to learn from
            loss = self._loss(student, images, False)
        return loss

    def _loss(self, student: nn.Module, images: Any, alone: bool) -> Tensor:
        models, weight = self.models, self.settings.block_weight
        blocks = models.blocks if weight or alone else ()
        device = next(student.parameters()).device.type

        def half() -> Any:
            return torch.autocast(device, torch.bfloat16, enabled=self.settings.bf16)

        if not alone and self.settings.method is not None and self.lesson is None:
            self.lesson = _Lesson(models, self.settings.method, images)
        lesson = None if alone else self.lesson
        there, here = (lesson.listen(m) if lesson else nullcontext(None) for m in (models.teacher, student))
        with evaluating(models.teacher), block_outputs(models.teacher, blocks) as inside, half(), there as told:
            wanted = call(models.teacher, images, models.forward)
        with torch.enable_grad(), block_errors(student, blocks, inside, alone) as errors, half(), here as heard:
            got = call(student, images, models.forward)
            loss = output_error(models.reference, wanted, got)
        if lesson is not None:
            loss = loss + lesson.loss(heard, got, told, wanted)
        self.comparable = self.comparable and len(errors) >= len(blocks)
        if errors:
            mean = torch.stack(errors).mean()
            loss = loss + (mean * len(errors) if alone else mean * weight)
        return loss


class _Lesson:
    """The loss of a distillation method between a student and its twin."""

    def __init__(self, models: TeacherStudent, method: str, images: Any) -> None:
        # the twins have the same modules, so both are listened to in the same places
        self.points = points_of(models.teacher, images, models.forward)
        self.method = method

    def listen(self, model: nn.Module) -> Any:
        return listening(model, self.points)

    def loss(self, heard: Any, got: Any, told: Any, wanted: Any) -> Tensor:
        heard.logits, told.logits = (output_tensors(y)[0].float() for y in (got, wanted))
        if heard.logits.ndim != 2 or heard.logits.shape[1] < 2:
            raise FewerError(
                f"the method {self.method} compares scores [N, classes]; this model gives {tuple(heard.logits.shape)}"
            )
        heard, told = heard.in_fp32(), told.in_fp32()
        return METHODS[self.method].run(heard, told)(heard, told, None)
