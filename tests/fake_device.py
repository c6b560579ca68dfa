"""A device whose times are made up: what a way takes follows from its name. For tests of costs and of verbs."""

from __future__ import annotations

import re

from fewer.cost.stopwatch import Timing

SPEED = {"fp32": 1.0, "bf16": 0.5, "int8": 0.25}


def made_up(way: str) -> float:
    """Ratio of a way: its precision's speed, times the work that is left, and 0.1 that nothing saves."""
    precision = next((p for p in SPEED if p in way), None)
    if precision is None:
        return 1.2  # as it came
    found = re.search(r"@([\d.]+)$", way)
    left = 1 - float(found[1]) if found else 1.0
    size = 20.0 if way.startswith("accelerated") else 1.0
    return size * (0.1 + SPEED[precision] * left)


class FakeWatch:
    """Stands in for the stopwatch; counts what was timed."""

    timed: int = 0
    fast: float = 10.0
    reference_ms = 2.0

    def __init__(self, reference_ms: float = 2.0, *, runtimes: bool = False) -> None:
        FakeWatch.timed = 0

    def time(self, candidates, **_):
        for run in candidates.values():
            assert callable(run)
        FakeWatch.timed += len(candidates)
        whole = any(name.startswith("accelerated") for name in candidates)
        times = {n: (30.0 if whole and n == "as it came" else made_up(n)) for n in candidates}
        if "fast" in times:  # a finished model beside the one it came from
            times = {"dense": 30.0, "fast": self.fast}
        return {name: Timing(ratio, 0.01, 5) for name, ratio in times.items()}
