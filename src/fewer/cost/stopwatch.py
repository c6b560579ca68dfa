"""Times that mean the same on a quiet and on a busy machine: counted in runs of a reference product, taken in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fewer.models.remembered import made_anew

__all__ = ["NOISY", "Stopwatch", "Timing"]

NOISY = 0.25
"""Interquartile range over the median above which a timing is taken again, and then called noisy."""

# small enough that it leaves most of a level-2 cache to what is timed, repeated to about a millisecond
_ROWS, _INPUTS, _OUTPUTS, _TIMES = 96, 256, 256, 6
_SAMPLE_MS = 1.0
_WARM_MS, _WARM = 20.0, 3
_WARMED_MS, _WARMED = 15.0, 8  # calls before a timing: so many milliseconds of them, and at most so many
_ALONE_TIMES = 40  # exponentials of so few numbers that torch computes them on one thread: about 0.4 ms
_PAUSE_S, _PAUSES, _RESTING = 0.01, 10, 0.1


@dataclass(frozen=True)
class Timing:
    """How long something took.

    Attributes
    ----------
    ratio
        Lower quartile of its time over the time of the reference product in the same round.
    spread
        Interquartile range of these ratios over their median.
    rounds
        How many rounds there were.
    """

    ratio: float
    spread: float
    rounds: int

    @property
    def noisy(self) -> bool:
        """Whether the spread is too wide to be trusted."""
        return self.spread > NOISY


class Stopwatch:
    """Times callables beside a reference product (six times fp32 96 x 256 by 256 x 256, in torch).

    A job on the neighbouring hardware thread or a lower clock slows both down alike, so the ratio of the two hardly
    moves, while milliseconds may double. ``reference_ms`` is the quickest reference seen; a ratio times that is the
    time on the machine when nothing disturbs it. With one thread the processor time of the process is counted, so
    that being pre-empted costs nothing; with more, wall time.

    Parameters
    ----------
    reference_ms
        The quickest reference known from before.
    runtimes
        Whether models in several runtimes are timed. With more than one thread each runtime has threads of its own,
        which go on spinning after their work: those of onnxruntime for 40 ms, those of OpenMP for 8. On as many cores
        as threads they hold up what another runtime does meanwhile, up to a hundred times. So each timing waits until
        all threads of this process rest, and the reference is a work of one thread.

    Examples
    --------
    >>> watch = Stopwatch()
    >>> watch.time({"nothing": lambda: None}, budget_ms=5)["nothing"].ratio < 0.5
    True
    >>> watch.reference_ms > 0
    True
    """

    def __init__(self, reference_ms: float = float("inf"), *, runtimes: bool = False) -> None:
        self.reference_ms = reference_ms
        generator = torch.Generator().manual_seed(0)
        self._x = torch.randn(_ROWS, _INPUTS, generator=generator)
        self._w = torch.randn(_OUTPUTS, _INPUTS, generator=generator)
        alone = torch.get_num_threads() == 1
        self._clock = time.process_time_ns if alone else time.perf_counter_ns
        self._rests = runtimes and not alone

    def _rest(self) -> None:
        """Wait until no thread of this process computes."""
        for _ in range(_PAUSES if self._rests else 0):
            start = time.process_time()
            time.sleep(_PAUSE_S)
            if time.process_time() - start < _RESTING * _PAUSE_S:
                return

    def _settled_reference(self) -> float:
        """Milliseconds of the reference once the threads of what ran before rest."""
        self._rest()
        if self._rests:  # the first one after a rest may have to wait for a core
            self._reference()
        return self._once(self._reference)

    def _reference(self) -> object:
        if self._rests:
            for _ in range(_ALONE_TIMES):
                torch.exp(self._x)
            return None
        for _ in range(_TIMES):
            torch.nn.functional.linear(self._x, self._w)
        return None

    def _once(self, run: Callable[[], object], repeats: int = 1) -> float:
        with made_anew():
            start = self._clock()
            for _ in range(repeats):
                run()
            return (self._clock() - start) / 1e6 / repeats

    def time(
        self,
        candidates: Mapping[str, Callable[[], object]],
        *,
        budget_ms: float = 60.0,
        rounds: int = 5,
        warm: bool = False,
    ) -> dict[str, Timing]:
        """Time callables in turns, the reference before and after each.

        Parameters
        ----------
        candidates
            What to time, by name. Each is called once before.
        budget_ms
            Stop after the round in which so much time was spent on each candidate.
        rounds
            At least so many rounds. They are doubled once when a spread is too wide.
        warm
            Whether what takes less than 20 ms is called for 15 ms before each timing, and then a few times. For whole
            models, which users run again and again: what ran in between has emptied the caches. The first call of a
            small model in int8 takes 1.4 times as long as the tenth and the fourth still 1.07 times; in fp32 these are
            1.1 and 1.0. Layers of a model do find the caches emptied.
        """
        with torch.inference_mode():
            repeats, cold = {}, {}
            for name, run in candidates.items():
                run()
                first = self._once(run)
                repeats[name] = max(1, min(100, round(_SAMPLE_MS / max(first, 1e-3))))
                if (warm or self._rests) and first < _WARM_MS:
                    cold[name] = max(1, min(_WARMED, round(_WARMED_MS / max(first, 1e-3))))
                    repeats[name] = max(_WARM, repeats[name])
            self._reference()
            ratios: dict[str, list[float]] = {name: [] for name in candidates}
            wanted, limit = rounds, budget_ms * len(candidates)
            start, done = time.perf_counter(), 0
            while done < wanted or ((time.perf_counter() - start) * 1e3 < limit and done < 200):
                before = self._settled_reference()
                for name, run in candidates.items():
                    self._rest()
                    for _ in range(cold.get(name, 0)):
                        run()
                    taken = self._once(run, repeats[name])
                    after = self._settled_reference()
                    ratios[name].append(taken / (0.5 * (before + after)))
                    self.reference_ms = min(self.reference_ms, after)
                    before = after
                done += 1
                if done == wanted == rounds and any(_timing(r).noisy for r in ratios.values()):
                    wanted = 2 * rounds
        return {name: _timing(values) for name, values in ratios.items()}


def _timing(ratios: list[float]) -> Timing:
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return Timing(float(low), float((high - low) / max(middle, 1e-12)), len(ratios))
