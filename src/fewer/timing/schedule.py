"""The order of the measurement: warm-up, then rounds in which every competitor runs once, A B C A B C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["MIN_ROUNDS", "Runner", "Samples", "choose_rounds", "interleave", "repeats_for"]

MIN_ROUNDS, MAX_ROUNDS = 7, 50
SAMPLE_MS = 20.0
"""A sample repeats the call until it lasts about this long, so that the clock's grain does not count."""
COLD_BELOW_MS = 100.0
"""Quicker calls get one untimed call before each sample: the others have just emptied the caches."""


class Runner(Protocol):
    """A competitor that is loaded and ready."""

    def time(self, repeats: int, lead: int) -> tuple[float, float]:
        """Call it ``lead`` times untimed, then ``repeats`` times; milliseconds per call: (wall, CPU)."""
        ...


@dataclass
class Samples:
    """What one competitor took, one value per round, in milliseconds per call."""

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    error: str | None = None


def repeats_for(estimate_ms: float) -> int:
    """How often a call of this length is repeated inside one sample.

    Examples
    --------
    >>> repeats_for(0.5), repeats_for(300.0)
    (40, 1)
    """
    return max(1, min(1000, round(SAMPLE_MS / max(estimate_ms, 1e-3))))


def lead_for(estimate_ms: float) -> int:
    """How many untimed calls come before a sample."""
    return 1 if estimate_ms < COLD_BELOW_MS else 0


def choose_rounds(estimates_ms: Sequence[float], seconds: float) -> int:
    """As many rounds as fit into ``seconds``, but 7 at least and 50 at most.

    Examples
    --------
    >>> choose_rounds([500.0, 500.0], seconds=20.0)
    20
    """
    one = sum(ms * (repeats_for(ms) + lead_for(ms)) for ms in estimates_ms) / 1000
    return max(MIN_ROUNDS, min(MAX_ROUNDS, int(seconds / max(one, 1e-6))))


def interleave(
    runners: Sequence[Runner],
    estimates_ms: Sequence[float],
    rounds: int,
    on_round: Callable[[int], None] = lambda done: None,
) -> list[Samples]:
    """Time all runners in turn, ``rounds`` times; one that fails is left out from then on, with its reason.

    A round that Ctrl-C cuts short is dropped, so that all samples stay paired; the exception carries on with the
    finished rounds in its ``samples`` attribute.
    """
    samples = [Samples() for _ in runners]
    for done in range(rounds):
        taken: list[tuple[Samples, tuple[float, float]]] = []
        try:
            for runner, into, estimate in zip(runners, samples, estimates_ms, strict=True):
                if into.error is None:
                    try:
                        taken.append((into, runner.time(repeats_for(estimate), lead_for(estimate))))
                    except RuntimeError as error:
                        into.error = str(error)
        except KeyboardInterrupt as stop:
            stop.samples = samples  # type: ignore[attr-defined]
            raise
        for into, (wall, cpu) in taken:
            into.wall_ms.append(wall)
            into.cpu_ms.append(cpu)
        on_round(done + 1)
    return samples
