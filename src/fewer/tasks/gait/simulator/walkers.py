"""Simulated data sets in the form of CASIA-B: persons, three conditions, eleven views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from fewer.core.progress import Progress, Silent
from fewer.tasks.gait.data.dataset import write_partition, write_sequence
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.gait.simulator.body import Body, capsules, joints_of, own_body
from fewer.tasks.gait.simulator.camera import render
from fewer.tasks.gait.simulator.motion import Gait, harmonic_gait, own_gait, recorded_gaits
from fewer.tasks.gait.simulator.noise import segmented

__all__ = ["VIEWS", "Sequenced", "Walkers", "casia_kinds"]

VIEWS = tuple(f"{angle:03}" for angle in range(0, 181, 18))
_STREAM = 241


def casia_kinds(normal: int = 6, bags: int = 2, coats: int = 2) -> tuple[str, ...]:
    """Names of the sequences of a person in CASIA-B.

    Examples
    --------
    >>> casia_kinds(1, 1, 1)
    ('nm-01', 'bg-01', 'cl-01')
    """
    counts = {"nm": normal, "bg": bags, "cl": coats}
    return tuple(f"{name}-{i:02}" for name, count in counts.items() for i in range(1, count + 1))


@dataclass(frozen=True, eq=False)
class Sequenced:
    """A simulated sequence.

    Attributes
    ----------
    frames
        uint8 (frames, 64, 64).
    period
        Frames of a stride, as it was simulated.
    phase
        Of every frame, radians; 0 is the left foot farthest ahead.
    """

    frames: np.ndarray
    period: float
    phase: np.ndarray


@dataclass(frozen=True, eq=False)
class Walkers:
    """A simulator of people; every sequence follows from the seed, the person and the kind alone.

    Attributes
    ----------
    seed
        Of everybody.
    motion
        File of motion capture (see :func:`~fewer.tasks.gait.simulator.motion.recorded_gaits`); None takes a model of
        joint angles.
    bodies, gaits
        ``own`` for everybody, or ``one`` for all. One body with own gaits can be told apart by motion only; own bodies
        with one gait by shape only. These are the guards against shortcuts.
    noise
        Strength of the errors of segmentation.
    rate
        Frames a second.

    Examples
    --------
    >>> walkers = Walkers(seed=1)
    >>> walkers.sequence(0, "nm-01", "090", 12).frames.shape
    (12, 64, 64)
    """

    seed: int = 0
    motion: str | Path | None = None
    bodies: Literal["own", "one"] = "own"
    gaits: Literal["own", "one"] = "own"
    noise: float = 1.0
    rate: float = 25.0

    @cached_property
    def known(self) -> list[Gait]:
        """Gaits that those of the persons are mixed from."""
        return [harmonic_gait()] if self.motion is None else list(recorded_gaits(self.motion).values())

    def person(self, number: int) -> tuple[Body, Gait]:
        """Body and gait of a person."""
        body_rng, gait_rng = (np.random.default_rng([_STREAM, self.seed, number, part]) for part in (0, 1))
        if self.gaits == "one":
            gait_rng = np.random.default_rng([_STREAM, self.seed, 10**6, 1])
        return own_body(body_rng if self.bodies == "own" else None), own_gait(self.known, gait_rng)

    def views(self, number: int, kind: str, views: Sequence[str] = VIEWS, frames: int = 40) -> dict[str, Sequenced]:
        """One walk, seen by all cameras at once.

        Parameters
        ----------
        number
            Of the person.
        kind
            Such as ``nm-01``, ``bg-02`` (a bag) or ``cl-01`` (a coat).
        views
            Degrees as text.
        frames
            Of the sequence.
        """
        code = [ord(c) for c in kind]
        rng = np.random.default_rng([_STREAM, self.seed, number, 2, *code])
        body, gait = self.person(number)
        # the same person never walks twice alike: another tempo, and a drift from stride to stride
        stride = gait.stride * self.rate * float(np.clip(rng.normal(1, 0.03), 0.9, 1.1))
        drift = np.zeros(frames)
        for t in range(1, frames):
            drift[t] = 0.95 * drift[t - 1] + 0.01 * rng.normal()
        phase = 2 * np.pi * (rng.random() + np.arange(frames) / stride) + drift
        series = gait.series.copy()
        series[:, :, 1:] *= rng.normal(1, 0.03, (len(series), 1, 1))
        condition = kind.split("-")[0]
        if condition == "bg":
            body = body.carrying(str(rng.choice(["hand", "back"])))
        elif condition == "cl":
            body = body.wearing(float(rng.uniform(0.025, 0.06)))
        joints = joints_of(body, Gait(series, gait.stride).directions(phase))
        cones = capsules(body, joints, 0.05 * np.cos(phase + rng.normal()))
        pace = 1.25 * body.height / 1.7 / self.rate * float(rng.normal(1, 0.05))
        path = (np.arange(frames) - frames / 2) * pace
        found = {}
        for view in views:
            own = np.random.default_rng([_STREAM, self.seed, number, 3, *code, int(view)])
            distance, height = float(own.uniform(4.5, 6.0)), float(own.uniform(1.1, 1.3))
            clean = render(cones, float(view) + float(own.normal(0, 1.5)), path, distance=distance, height=height)
            found[view] = Sequenced(segmented(clean, own, self.noise), stride, phase)
        return found

    def sequence(self, number: int, kind: str, view: str, frames: int = 40) -> Sequenced:
        """One walk of one camera."""
        return self.views(number, kind, (view,), frames)[view]

    def write(
        self,
        folder: str | Path,
        people: int,
        *,
        train: int | None = None,
        kinds: Sequence[str] | None = None,
        views: Sequence[str] = VIEWS,
        frames: int = 40,
        form: str = "npz",
        progress: Progress | None = None,
    ) -> Path:
        """Write a data set, with a partition file; npz files also hold the known period and phase.

        Parameters
        ----------
        folder
            Where to.
        people
            Number of persons.
        train
            So many of them train; three fifths by default.
        kinds, views, frames
            Of every person.
        form
            ``npz`` or ``pkl``.
        """
        root, kinds = Path(folder), kinds or casia_kinds()
        names = [f"{number + 1:03}" for number in range(people)]
        with (progress or Silent()).stage("simulate walkers", people) as stage:
            for number, name in enumerate(names):
                for kind in kinds:
                    for view, seen in self.views(number, kind, views, frames).items():
                        facts = {"period": np.float64(seen.period), "phase": seen.phase}
                        write_sequence(root, Walk(name, kind, view), seen.frames, form=form, facts=facts)
                stage.advance(1, name)
        cut = round(0.6 * people) if train is None else train
        write_partition(root, names[:cut], names[cut:])
        return root
