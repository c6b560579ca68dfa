"""Timing within one process: warm-up, samples in wall and CPU time, and the peak of this process's memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["peak_memory", "reset_peak_memory", "sample", "warm_up"]

WARM_CALLS, WARM_SECONDS, WARM_LIMIT = 3, 0.3, 200


def sample(
    call: Callable[[], Any],
    repeats: int,
    lead: int = 0,
    wall: Callable[[], float] = time.perf_counter,
    cpu: Callable[[], float] = time.process_time,
) -> tuple[float, float]:
    """Milliseconds per call, (wall, CPU of all threads), of ``repeats`` calls after ``lead`` untimed ones."""
    for _ in range(lead):
        call()
    collecting = gc.isenabled()
    gc.disable()
    try:
        wall_start, cpu_start = wall(), cpu()
        for _ in range(repeats):
            call()
        cpu_end, wall_end = cpu(), wall()
    finally:
        if collecting:
            gc.enable()
    return (wall_end - wall_start) * 1000 / repeats, (cpu_end - cpu_start) * 1000 / repeats


def warm_up(call: Callable[[], Any], wall: Callable[[], float] = time.perf_counter) -> float:
    """Call until the times have settled: at least 3 calls and 0.3 s; returns the quickest call in milliseconds."""
    start, best = wall(), float("inf")
    for done in range(1, WARM_LIMIT + 1):
        before = wall()
        call()
        now = wall()
        best = min(best, now - before)
        if done >= WARM_CALLS and now - start >= WARM_SECONDS:
            break
    return best * 1000


def peak_memory() -> int | None:
    """Peak resident memory of this process in bytes, or None where the system does not tell.

    Linux's own counter is read, since ``getrusage`` there starts at the peak of the process that started this one.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    except ImportError:
        return None


def reset_peak_memory() -> bool:
    """Start the peak anew from the present, so that loading does not count; False where that is not possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
