"""Measured energy, where there is a sensor: RAPL counters of the CPU, zeus for GPUs. Otherwise None, never a guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

__all__ = ["EnergyMeter", "MeasuredEnergy", "RaplMeter", "ZeusMeter", "find_meter", "measure_energy"]

RAPL = Path("/sys/class/powercap")


class EnergyMeter(Protocol):
    """Counts joules between two moments."""

    name: str

    def read(self) -> float:
        """Joules since some moment that stays the same while the meter lives."""
        ...


class RaplMeter:
    """The packages' counters that Linux shows under ``/sys/class/powercap``; wrap-around is taken care of.

    Parameters
    ----------
    folder
        Where the counters are.

    Raises
    ------
    OSError
        When there is none that may be read (they belong to root on most systems).

    Examples
    --------
    >>> RaplMeter().read()  # doctest: +SKIP
    12.5
    """

    name = "RAPL"

    def __init__(self, folder: Path = RAPL) -> None:
        # packages only: their sub-domains (core, dram of the package) are part of them on most processors
        self._domains = [p for p in sorted(folder.glob("intel-rapl:*")) if p.name.count(":") == 1]
        if not self._domains:
            raise OSError(f"no energy counters in {folder}")
        self._spans = [float((d / "max_energy_range_uj").read_text()) for d in self._domains]
        self._last = self._raw()
        self._total = 0.0

    def _raw(self) -> list[float]:
        return [float((d / "energy_uj").read_text()) for d in self._domains]

    def read(self) -> float:
        """Joules since the meter was made."""
        now = self._raw()
        for before, after, span in zip(self._last, now, self._spans, strict=True):
            self._total += after - before + (span if after < before else 0.0)
        self._last = now
        return self._total / 1e6


class ZeusMeter:
    """The GPUs' energy counters through zeus.

    Raises
    ------
    ImportError, RuntimeError
        When zeus is not installed (``pip install zeus``), or sees no GPU.
    """

    name = "zeus"

    def __init__(self) -> None:
        from zeus.device import get_gpus  # type: ignore[import-not-found]

        self._gpus: Any = get_gpus()
        if not len(self._gpus):
            raise RuntimeError("zeus sees no GPU")

    def read(self) -> float:
        """Joules of all GPUs since the driver was loaded."""
        return sum(self._gpus.get_total_energy_consumption(i) for i in range(len(self._gpus))) / 1e3


def find_meter(device: str = "cpu", folder: Path = RAPL) -> EnergyMeter | None:
    """A meter of a device, or None where there is no sensor: a virtual machine has none.

    Examples
    --------
    >>> find_meter("cpu", Path("/nowhere")) is None
    True
    """
    try:
        return RaplMeter(folder) if device == "cpu" else ZeusMeter()
    except (OSError, ImportError, RuntimeError, ValueError):
        return None


@dataclass(frozen=True)
class MeasuredEnergy:
    """Joules of one call.

    Attributes
    ----------
    net, gross
        Median over the windows, with and without the idle power taken off.
    spread
        Interquartile range of the net joules over their median.
    idle_watts
        Power while nothing was run.
    """

    net: float
    gross: float
    spread: float
    idle_watts: float


def measure_energy(
    run: Callable[[], object],
    meter: EnergyMeter,
    *,
    windows: int = 5,
    seconds: float = 5.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> MeasuredEnergy:
    """Joules of one call: idle power first, then windows of repeated calls; counters are slow, so windows are long.

    Parameters
    ----------
    run
        What to measure. A GPU must be waited for inside of it.
    meter
        Where the joules come from.
    windows, seconds
        How many windows of at least how many seconds.
    clock, sleep
        For tests.

    Examples
    --------
    >>> measure_energy(model, find_meter())  # doctest: +SKIP
    MeasuredEnergy(net=0.61, gross=0.83, spread=0.02, idle_watts=11.0)
    """
    run()
    start, before = clock(), meter.read()
    sleep(seconds)
    idle = (meter.read() - before) / max(clock() - start, 1e-9)
    net, gross = [], []
    for _ in range(windows):
        calls, start, before = 0, clock(), meter.read()
        while calls == 0 or clock() - start < seconds:
            run()
            calls += 1
        joules, taken = meter.read() - before, clock() - start
        gross.append(joules / calls)
        net.append((joules - idle * taken) / calls)
    low, middle, high = np.quantile(net, [0.25, 0.5, 0.75])
    spread = float((high - low) / middle) if middle else 0.0
    return MeasuredEnergy(float(middle), float(np.median(gross)), spread, idle)
