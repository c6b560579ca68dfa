"""Choice of the fastest way to run a layer, by interleaved measurement on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Runnable = Callable[[], object]


@dataclass(frozen=True)
class Choice:
    """Which candidate won.

    Attributes
    ----------
    name : str
        The candidate to use.
    ms : dict of str to float
        Milliseconds of each candidate, see :func:`measure`.
    reason : str
        One sentence for the report.
    """

    name: str
    ms: dict[str, float]
    reason: str


def measure(candidates: Mapping[str, Runnable], *, budget_ms: float = 40.0, rounds: int = 5) -> dict[str, float]:
    """Milliseconds of each candidate, taken in turns so that a slow phase of the machine hits all of them.

    The lower quartile is given: what disturbs a call only ever makes it slower.

    With one thread the processor time of the process is counted, so that other jobs are not; with more, wall time.

    Parameters
    ----------
    candidates : mapping of str to callable
        What to time.
    budget_ms : float
        Stop after the round in which this much time is used.
    rounds : int
        At least this many rounds, after one that does not count.

    Examples
    --------
    >>> sorted(measure({"a": lambda: None, "b": lambda: None}, budget_ms=1))
    ['a', 'b']
    """
    clock = time.process_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns
    taken: dict[str, list[int]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    start = time.perf_counter_ns()
    while len(next(iter(taken.values()))) < rounds or time.perf_counter_ns() - start < budget_ms * 1e6:
        for name, run in candidates.items():
            before = clock()
            run()
            taken[name].append(clock() - before)
    return {name: sorted(times)[len(times) // 4] / 1e6 for name, times in taken.items()}


def choose_backend(
    candidates: Mapping[str, Runnable], baseline: str, *, budget_ms: float = 40.0, margin: float = 1.05
) -> Choice:
    """The fastest candidate, or the baseline unless it is beaten by ``margin``.

    Parameters
    ----------
    candidates : mapping of str to callable
        Ways to compute the same layer, the baseline among them.
    baseline : str
        What to keep when nothing is clearly faster.
    budget_ms : float
        Time to spend.
    margin : float
        How many times faster the winner must be; below that, measurement noise could make the layer slower.

    Examples
    --------
    >>> choice = choose_backend({"dense": lambda: sum(range(20000)), "native": lambda: None}, "dense", budget_ms=1)
    >>> choice.name
    'native'
    """
    ms = measure(candidates, budget_ms=budget_ms)
    best = min(ms, key=lambda name: ms[name])
    gain = ms[baseline] / max(ms[best], 1e-9)
    if best != baseline and gain >= margin:
        return Choice(best, ms, f"{best} takes {ms[best]:.3f} ms, {gain:.2f} times faster than {baseline}")
    others = [name for name in ms if name != baseline]
    if not others:
        return Choice(baseline, ms, f"{baseline} is the only way to run it")
    other = min(others, key=lambda name: ms[name])
    return Choice(
        baseline, ms, f"stays {baseline} ({ms[baseline]:.3f} ms): {other} takes {ms[other]:.3f} ms, which is no gain"
    )
