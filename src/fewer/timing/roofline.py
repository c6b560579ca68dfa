"""The roofline of this machine: peak FLOP/s of torch's own matrix products per precision, and memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["attainable_seconds", "measure"]

SIZES = (256, 512, 1024, 2048)
SLOW_S = 0.3
"""A product that takes so long has no fast form on this CPU (bf16 and int8 without their instructions): larger ones,
eight times as long each, would only show the same rate."""
COPY_BYTES = 256 * 2**20
"""Well above any last-level cache of a desktop; servers with more cache read too high a bandwidth."""


def measure(quick: bool = False) -> dict[str, Any]:
    """Measure with the threads that torch is set to.

    Parameters
    ----------
    quick : bool
        Smaller sizes, for tests.

    Returns
    -------
    dict
        ``peaks``: precision to FLOP/s (for int8: operations/s), the best over square products of several sizes; a
        precision that torch cannot multiply here is absent. ``bandwidth``: bytes/s of a copy, read plus written.
    """
    sizes = SIZES[:2] if quick else SIZES
    peaks = {}
    for name, make, multiply in (
        ("fp32", lambda n: torch.randn(n, n), torch.mm),
        ("bf16", lambda n: torch.randn(n, n).bfloat16(), torch.mm),
        ("int8", lambda n: torch.randint(-127, 127, (n, n), dtype=torch.int8), torch._int_mm),  # pyright: ignore[reportPrivateImportUsage]
    ):
        try:
            peaks[name] = _peak(multiply, make, sizes)
        except (RuntimeError, NotImplementedError):  # no such product on this CPU
            continue
    count = (COPY_BYTES // 16 if quick else COPY_BYTES) // 4
    source, target = torch.ones(count), torch.empty(count)
    return {"peaks": peaks, "bandwidth": _rate(target.copy_, source, None, 8.0 * count)}


def attainable_seconds(flops: float, size: float, peak: float, bandwidth: float) -> float:
    """The least time that the roofline allows: the slower of computing ``flops`` and moving ``size`` bytes.

    Examples
    --------
    >>> attainable_seconds(flops=4e9, size=1e9, peak=2e9, bandwidth=1e9)
    2.0
    """
    return max(flops / peak, size / bandwidth)


def _peak(multiply: Callable[..., Any], make: Callable[[int], torch.Tensor], sizes: tuple[int, ...]) -> float:
    best = 0.0
    for n in sizes:
        work = 2.0 * n**3
        rate = _rate(multiply, make(n), make(n), work)
        best = max(best, rate)
        if work / rate > SLOW_S:
            break
    return best


def _rate(call: Callable[..., Any], a: torch.Tensor, b: torch.Tensor | None, work: float) -> float:
    arguments = (a,) if b is None else (a, b)
    with torch.inference_mode():
        call(*arguments)
        best, spent, calls = float("inf"), 0.0, 0
        while (calls < 3 and spent < 0.5) or (spent < 0.2 and calls < 200):
            start = time.perf_counter()
            call(*arguments)
            took = time.perf_counter() - start
            best, spent, calls = min(best, took), spent + took, calls + 1
    return work / best
