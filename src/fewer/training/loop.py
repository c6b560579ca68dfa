"""The one training loop: steps, validations and checkpoints, and a resume that equals never having stopped.

A training is a call of :func:`fit`. What it needs at least is a model and an objective, a function from the model and
the number of a step to a loss; all else has a named place:

==================  ===================================================================================================
settings            :class:`~fewer.training.settings.LoopSettings`: everything below in plain values, for users
schedule            :class:`~fewer.training.schedule.Schedule`: end after steps or a time; shape of the rate
optimiser           :class:`~fewer.training.optimise.Optimiser`: name, rate, groups, clipping
players             :class:`~fewer.training.optimise.Player`: several objectives in turns, as in a GAN
validation          :class:`Validation`: a score now and then; the best state is kept
average             :class:`~fewer.training.average.Average`: moving average; mean teacher
constraints         :class:`~fewer.training.constrained.Constrained`: masks and number formats, kept at every step
checkpoint          :class:`~fewer.training.checkpoint.Checkpoint`: where and how often
callbacks           :class:`~fewer.training.callbacks.Callback`: called before and after steps and validations
special             :class:`Special`: what few trainings need, such as a start in numbers that another way has given
==================  ===================================================================================================

The random numbers of a step depend on the seed and the number of the step alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.memory import keep_freed_memory
from fewer.core.progress import SILENT, Progress, Stage
from fewer.training.average import Average
from fewer.training.callbacks import Callback, full_name, lookers
from fewer.training.checkpoint import Checkpoint, Training, restore, store
from fewer.training.constrained import Constrained
from fewer.training.devices import average_buffers, check_device, make_accelerator, of_first
from fewer.training.history import Fit
from fewer.training.optimise import Objective, Optimiser, Player, make_optimisers, optimiser_of
from fewer.training.schedule import Pace, Schedule, schedule_of
from fewer.training.seeds import caller_random, seed_step
from fewer.training.settings import LoopSettings
from fewer.training.shield import shield
from fewer.training.steps import NotFinite, Stepper

__all__ = ["Fit", "NotFinite", "Special", "Validation", "check_device", "fit", "make_accelerator"]


_VALIDATION = 2**40
"""Keeps the random numbers of validations apart from those of steps."""


@dataclass(frozen=True)
class Validation:
    """How a training is judged while it goes on.

    Attributes
    ----------
    run
        ``run(model)``: a score, or several by name, of which the first decides. The moving average is installed, if
        there is one.
    better
        Whether a ``higher`` or a ``lower`` score is better.
    name
        What progress calls the score.
    at_start
        Judge the model before the first step too.
    times
        So many validations, spread evenly over the schedule and fewer where they would take more than an eighth of
        its time; None validates every ``settings.every`` steps. The end is always judged.
    """

    run: Callable[[nn.Module], float | Mapping[str, float]]
    better: Literal["higher", "lower"] = "higher"
    name: str = "score"
    at_start: bool = False
    times: int | None = None


@dataclass(frozen=True)
class Special:
    """What few trainings need.

    Attributes
    ----------
    start
        What was done before the first step, in another way: a history, and the best state so far.
    train_mode
        Put the model into training mode before each step; otherwise into evaluation mode, so that BatchNorm keeps its
        statistics and dropout is off.
    tolerate
        So many steps in a row whose loss is not finite are left out, before the training stops.
    clock
        Gives seconds.
    splits
        The objective gives this process's part of a batch by itself. Otherwise the numbers of batches are dealt out:
        two processes then train what one does that accumulates two batches.
    """

    start: Fit | None = None
    train_mode: bool = True
    tolerate: int = 0
    clock: Callable[[], float] = perf_counter
    splits: bool = False


@keep_freed_memory()
def fit(
    model: nn.Module,
    objective: Objective | Sequence[Player],
    settings: LoopSettings | None = None,
    accelerator: Any = None,
    *,
    steps: int | None = None,
    schedule: Schedule | None = None,
    optimiser: Optimiser | None = None,
    name: str = "train",
    progress: Progress = SILENT,
    checkpoint: Path | Checkpoint | None = None,
    validate: Callable[[nn.Module], float | Mapping[str, float]] | Validation | None = None,
    constraints: Constrained | None = None,
    average: Average | None = None,
    callbacks: Sequence[Callback] = (),
    special: Special | None = None,
) -> Fit:
    """Train a model in place.

    The randomness of a step depends on the seed and its number alone; so a run that was interrupted and goes on from
    its checkpoint ends with the very weights of one that was not.

    Parameters
    ----------
    model
        On the accelerator's device. A model with several players holds the parts of all of them.
    objective
        ``objective(model, step)``: the loss of a batch, or losses by name, which are added up; or several players,
        which take turns in their order. It may call any method of the model; mixed precision holds for all of it.
    settings
        Everything in plain values; the arguments below that are given count more.
    accelerator
        See :func:`~fewer.training.devices.make_accelerator`; None makes one of the settings.
    steps
        Number of steps, in place of that of the settings.
    schedule, optimiser
        In place of those that the settings describe.
    name
        Of the progress bar.
    progress
        Shows a stage, in steps or in seconds.
    checkpoint
        File that is written now and then and on Ctrl-C, and read first if it is there.
    validate
        ``validate(model)``: a score, higher is better; or a :class:`Validation`.
    constraints
        What may not change of the model's parameters.
    average
        A moving average that is kept, such as one whose teacher the objective calls; by default that of the settings.
    callbacks
        Called before and after steps and validations, and after them those of
        :func:`~fewer.training.callbacks.looking_on`.
    special
        What few trainings need.

    Returns
    -------
    Fit
        History, and the best state (:meth:`~fewer.training.history.Fit.load_best`). Without validation but with a
        moving average, the best state is the average at the end.

    Raises
    ------
    NotFinite
        When a loss or gradient is not finite; the model is as before that step.
    FewerError
        When the checkpoint belongs to another training, or settings contradict each other.

    Examples
    --------
    >>> x = torch.linspace(-1, 1, 32)[:, None]
    >>> net = nn.Linear(1, 1)
    >>> done = fit(net, lambda net, step: (net(x) - 2 * x).square().mean(), LoopSettings(steps=200, learning_rate=0.1))
    >>> round(net.weight.item(), 2), done.step, done.stopped
    (2.0, 200, 'schedule')
    """
    settings, special = settings or LoopSettings(), special or Special()
    accelerator = accelerator or make_accelerator(settings)
    players = [Player("", objective)] if callable(objective) else list(objective)
    validation = Validation(validate) if validate is not None and not isinstance(validate, Validation) else validate
    if isinstance(checkpoint, Path):
        checkpoint = Checkpoint(checkpoint)
    if average is None and settings.average:
        average = Average(constraints or model, settings.average)
    how = optimiser or optimiser_of(settings)
    done = special.start or Fit()
    done.began, done.better = done.seconds, validation.better if validation else "higher"
    weights = _weights(model, constraints, average)
    state = Training(done, weights, make_optimisers(weights, players, how), average, accelerator.scaler)
    resumed = _resume(checkpoint, state)
    done.name = full_name(name)
    stepper = Stepper(
        state,
        players,
        how,
        accelerator,
        seed=settings.seed,
        accumulate=settings.accumulate,
        train_mode=special.train_mode,
        tolerate=special.tolerate,
        splits=special.splits,
    )
    pace = Pace(schedule or schedule_of(settings, steps), special.clock, done.seconds, done.began)
    watching = [*callbacks, *(lookers() if accelerator.is_main_process else ())]
    loop = _Loop(state, stepper, pace, accelerator, validation, settings, checkpoint, watching)
    with caller_random():
        if not resumed and done.history:
            loop.store()
        loop.run(name, progress)
    return done


def _weights(model: nn.Module, constraints: Constrained | None, average: Average | None) -> Constrained:
    """What the optimisers step on: a moving average must be one of these very weights."""
    if constraints is not None and average is not None and average.weights is not constraints:
        raise FewerError("the moving average must be made from the constraints that the training has")
    return constraints or (average.weights if average else Constrained(model, {}, only_trainable=True))


def _resume(checkpoint: Checkpoint | None, state: Training) -> bool:
    """Take up what a checkpoint holds, if there is one."""
    if checkpoint is None or not checkpoint.path.exists():
        return False
    restore(checkpoint.path, checkpoint.key, state)
    if state.fit.stopped == "schedule":  # more time may be given now
        state.fit.stopped = ""
    return True


class _Loop:
    """Steps, validations and checkpoints in their order."""

    def __init__(
        self,
        state: Training,
        stepper: Stepper,
        pace: Pace,
        accelerator: Any,
        validation: Validation | None,
        settings: LoopSettings,
        checkpoint: Checkpoint | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.state, self.fit, self.stepper, self.pace = state, state.fit, stepper, pace
        self.accelerator, self.validation, self.settings = accelerator, validation, settings
        self.checkpoint, self.callbacks = checkpoint, callbacks
        self.stored = pace.clock()
        self.shown = 0.0  # of the progress bar, in steps or seconds

    def run(self, name: str, progress: Progress) -> None:
        schedule = self.pace.schedule
        total = float(schedule.steps) if schedule.steps is not None else schedule.seconds
        try:
            with progress.stage(name, total) as stage:
                self._show(stage)
                self._run(stage)
        except KeyboardInterrupt:
            if self.stepper.whole:
                self.stepper.undo()
                self.store()
            raise
        finally:
            self.stepper.close()

    def _run(self, stage: Stage) -> None:
        fit = self.fit
        self._tell("start")
        if self.validation is not None and self.validation.at_start and not fit.history:
            self._validate()
        while not fit.stopped:
            over = self._is_over()
            # whether a validation is due follows from the state alone, so that one that was interrupted is made up for
            if (over or self._is_due()) and not self._is_judged():
                self._validate()
                self._show(stage)
                self._store_if_due(validated=True)
            elif over:
                fit.stopped = "schedule"
            else:
                self._step()
                self._show(stage)
                self._store_if_due()
        if self.state.average is not None and fit.best is None:
            with self.state.average.installed():
                state = self.state.weights.model.state_dict()
                fit.best = {name: value.detach().cpu().clone() for name, value in state.items()}
                fit.best_step = fit.step
        self._tell("finish")

    def _step(self) -> None:
        fit, pace = self.fit, self.pace
        began = pace.clock()
        fit.part = of_first(pace.part(fit.step), self.accelerator)
        self._tell("before_step")
        self.stepper.step(pace.schedule.factor(fit.part))
        pace.note_step(fit.step, pace.clock() - began)
        fit.seconds = pace.seconds()
        self._tell("after_step")

    def _is_over(self) -> bool:
        return bool(of_first(float(self.pace.is_over(self.fit.step)), self.accelerator))

    def _is_judged(self) -> bool:
        return bool(self.fit.history) and self.fit.history[-1]["step"] == self.fit.step

    def _is_due(self) -> bool:
        """Whether the latest step ended a stretch after which the model is judged."""
        fit, times = self.fit, self.validation.times if self.validation else None
        if not fit.step:
            return False
        if times is None:
            return fit.step % self.settings.every == 0
        count = self.pace.affordable(times)
        return int(of_first(self.pace.part(fit.step), self.accelerator) * count) > int(fit.part * count)

    def _validate(self) -> None:
        fit, began = self.fit, self.pace.clock()
        model, validation, average = self.state.weights.model, self.validation, self.state.average
        losses = {name: float(torch.stack(values).mean()) for name, values in self.state.losses.items()}
        # a validation that was interrupted and is made up for must draw what it would have drawn
        seed_step(self.settings.seed, _VALIDATION + fit.step)
        average_buffers(model, self.accelerator)  # every process has seen other batches
        with average.installed() if average is not None else nullcontext():
            found = validation.run(model) if validation is not None else {}
            self.pace.validating = max(self.pace.validating, self.pace.clock() - began)
            scores = dict(found) if isinstance(found, Mapping) else {"score": float(found)}
            first = next(iter(scores.values()), None)
            scores.pop("score", None)
            with shield():
                fit.seconds = self.pace.seconds()
                fit.note(model, first, losses | scores)
                self.state.losses = {}
        waited = sum(entry["step"] > fit.best_step for entry in fit.history if "score" in entry)
        if self.settings.patience is not None and validation is not None and waited >= self.settings.patience:
            fit.stopped = "patience"
        self._tell("validated")
        self.accelerator.wait_for_everyone()

    def _tell(self, what: str) -> None:
        for callback in self.callbacks:
            getattr(callback, what)(self.fit)

    def _show(self, stage: Stage) -> None:
        schedule, fit = self.pace.schedule, self.fit
        now = float(fit.step) if schedule.seconds is None else min(fit.seconds, schedule.seconds)
        entry = fit.history[-1] if fit.history else {}
        words = [f"loss {entry['loss']:.3f}"] if "loss" in entry else []
        if "score" in entry and self.validation is not None:
            words.append(f"{self.validation.name} {entry['score']:.3f}")
        stage.advance(max(0.0, now - self.shown), ", ".join(words))
        self.shown = max(self.shown, now)

    def _store_if_due(self, validated: bool = False) -> None:
        if self.checkpoint is None:
            return
        if (validated and self.checkpoint.at_validations) or self.pace.clock() - self.stored > self.checkpoint.seconds:
            self.store()

    def store(self) -> None:
        """Write the checkpoint, if there is to be one and this is the first process."""
        if self.checkpoint is None or not self.accelerator.is_main_process:
            return
        self.fit.seconds = self.pace.seconds()
        store(self.checkpoint.path, self.checkpoint.key, self.state)
        self.stored = self.pace.clock()
