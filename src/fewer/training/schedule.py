"""How long a training goes on, and how large its steps are at each point of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from fewer.core.errors import FewerError
from fewer.core.methods import Method, MethodTable
from fewer.training.settings import LoopSettings

__all__ = ["SHAPES", "Pace", "Schedule", "schedule_of"]

_VALIDATING = 0.12  # of a training that ends after a time, validations take so much at most


def _polynomial(schedule: Schedule, part: float) -> float:
    return (1 - part) ** schedule.power


def _cosine(schedule: Schedule, part: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * part))


def _steps(schedule: Schedule, part: float) -> float:
    return schedule.drop ** sum(part >= milestone for milestone in schedule.milestones)


def _constant(schedule: Schedule, part: float) -> float:
    return 1.0


SHAPES: MethodTable[Callable[[Schedule, float], float]] = MethodTable(
    "shape of the rate",
    [
        Method("polynomial", _polynomial, "falls to 0 as (1 - part)^power", "Chen et al. 2017, DeepLab"),
        Method("cosine", _cosine, "falls to 0 as half a cosine", "Loshchilov and Hutter 2017, SGDR"),
        Method("steps", _steps, "is multiplied by a factor at each milestone"),
        Method("constant", _constant, "stays as it is"),
    ],
)
"""How a rate falls: from the share of the training that is over, 0 to 1, to a factor."""


@dataclass(frozen=True)
class Schedule:
    """End of a training, and the factor of its learning rates on the way there.

    Attributes
    ----------
    steps, seconds
        The training ends after a number of steps or after a time; exactly one is given. Only steps are deterministic,
        since how many of them fit into a time is up to the machine.
    shape
        A row of :data:`SHAPES`.
    warm_up
        Share of the training in which the factor first rises in a straight line, 0 to 1.
    warm_up_from
        The factor at the very beginning of the warm-up.
    power
        Of the shape ``polynomial``; 0.9 as in nnU-Net.
    milestones, drop
        Of the shape ``steps``: shares of the training at which the factor is multiplied by ``drop``.

    Raises
    ------
    FewerError
        When the values contradict each other, or the shape is unknown.

    Examples
    --------
    >>> schedule = Schedule(steps=100, shape="cosine", warm_up=0.1)
    >>> [round(schedule.factor(part), 3) for part in (0.0, 0.05, 0.1, 0.55, 1.0)]
    [0.1, 0.55, 1.0, 0.5, 0.0]
    """

    steps: int | None = None
    seconds: float | None = None
    shape: str = "polynomial"
    warm_up: float = 0.0
    warm_up_from: float = 0.1
    power: float = 0.9
    milestones: tuple[float, ...] = (0.6, 0.85)
    drop: float = 0.1

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise FewerError("a training ends after a time or after a number of steps; give one of the two")
        if self.steps is not None and self.steps < 1:
            raise FewerError(f"the number of steps must be at least 1; got {self.steps}")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise FewerError(f"the time of a training must be more than 0 seconds; got {self.seconds:g}")
        if not 0 <= self.warm_up < 1:
            raise FewerError(f"the warm-up is a share of the training from 0 to less than 1; got {self.warm_up:g}")
        SHAPES[self.shape]

    def factor(self, part: float) -> float:
        """What a rate is multiplied by when a share ``part`` of the training is over."""
        if part < self.warm_up:
            return self.warm_up_from + (1 - self.warm_up_from) * part / self.warm_up
        return SHAPES[self.shape].run(self, min(1.0, (part - self.warm_up) / (1 - self.warm_up)))


def schedule_of(settings: LoopSettings, steps: int | None = None) -> Schedule:
    """The schedule that settings describe; ``steps`` stands in for theirs.

    Examples
    --------
    >>> schedule_of(LoopSettings(steps=10)).steps, schedule_of(LoopSettings(time=60.0)).seconds
    (10, 60.0)
    """
    timed = settings.time is not None and steps is None
    return Schedule(
        steps=None if timed else steps or settings.steps,
        seconds=settings.time if timed else None,
        shape=settings.rate_shape,
        warm_up=settings.rate_warm_up,
    )


class Pace:
    """Where a training stands in its schedule, by its steps or by the clock.

    A training with a time limit ends early enough for one more step, as slow as the slowest one so far, and for the
    last validation.

    Parameters
    ----------
    schedule
        Where the training ends.
    clock
        Gives seconds.
    spent
        Seconds of the training that earlier processes have spent.
    began
        Of these, what had passed before the first step; the schedule begins after it.

    Examples
    --------
    >>> pace = Pace(Schedule(steps=4))
    >>> pace.part(1), pace.is_over(3), pace.is_over(4)
    (0.25, False, True)
    """

    def __init__(
        self, schedule: Schedule, clock: Callable[[], float] = perf_counter, spent: float = 0.0, began: float = 0.0
    ) -> None:
        self.schedule, self.clock, self.began = schedule, clock, began
        self._spent, self._start = spent, clock()
        self.slowest = 0.0  # seconds of the slowest step
        self.validating = 0.0  # seconds of the slowest validation

    def seconds(self) -> float:
        """Seconds spent on the training so far, in all processes."""
        return self._spent + self.clock() - self._start

    def part(self, step: int) -> float:
        """Share of the training that is over after ``step`` steps, 0 to 1."""
        if self.schedule.steps is not None:
            return min(1.0, step / self.schedule.steps)
        return min(1.0, max(0.0, self.seconds() - self.began) / max(1e-9, self._last() - self.began))

    def is_over(self, step: int) -> bool:
        """Whether no further step fits in."""
        if self.schedule.steps is not None:
            return step >= self.schedule.steps
        return self.seconds() + self.slowest >= self._last()

    def note_step(self, step: int, seconds: float) -> None:
        """Take in how long a step took; the first steps of a process load code and are no measure."""
        self.slowest = max(self.slowest, seconds) if step > 1 else 0.0

    def affordable(self, validations: int) -> int:
        """How many validations the schedule is worth: fewer where they would take more than an eighth of the time."""
        if self.schedule.steps is not None:
            return min(validations, self.schedule.steps)
        assert self.schedule.seconds is not None
        return max(1, min(validations, int(_VALIDATING * self.schedule.seconds / max(self.validating, 1e-9))))

    def _last(self) -> float:
        """Seconds at which steps must end, so that the last validation is over in time."""
        assert self.schedule.seconds is not None
        return max(1e-9, self.schedule.seconds - 1.1 * self.validating)
