"""The environment stamp: on what machine, and with which versions, the numbers were made."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewer.core.version import __version__

__all__ = [
    "cpu_name",
    "cpuinfo",
    "environment",
    "instruction_sets",
    "memory_bytes",
    "system",
    "usable_cores",
    "versions",
]

_ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8", "asimd", "sve")


def environment(
    threads: int | Sequence[int] | None = None, *, libraries: Sequence[str] = ("torch", "numpy"), **more: Any
) -> dict[str, Any]:
    """Describe this machine and the libraries that count for a measurement.

    torch is not imported: a library's version is read from the module if it is loaded already, otherwise from its
    package metadata.

    Parameters
    ----------
    threads
        Threads that the run used, or the settings that were compared. By default torch is asked if it is loaded,
        otherwise ``OMP_NUM_THREADS`` counts, otherwise the cores that this process may use.
    libraries
        Packages whose versions belong to the stamp.
    **more
        Further facts of the measurement, kept as they are.

    Returns
    -------
    dict
        ``fewer python cpu isa cores threads memory_bytes os load``, the libraries and ``more``; None where a fact
        cannot be found out.

    Examples
    --------
    >>> stamp = environment(threads=2, libraries=["numpy"], pinned=True)
    >>> sorted(stamp)  # doctest: +NORMALIZE_WHITESPACE
    ['cores', 'cpu', 'fewer', 'isa', 'load', 'memory_bytes', 'numpy', 'os', 'pinned', 'python', 'threads']
    """
    fields, cores = cpuinfo(), usable_cores()
    return {
        **versions(*libraries),
        "cpu": cpu_name(fields),
        "isa": " ".join(instruction_sets(fields)) or None,
        "cores": cores,
        "threads": (_threads(cores) if threads is None else threads if isinstance(threads, int) else list(threads)),
        "memory_bytes": memory_bytes(),
        "os": system(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        **more,
    }


def versions(*libraries: str) -> dict[str, str | None]:
    """Versions of fewer, Python and the named libraries; None for one that is not installed."""
    return {
        "fewer": __version__,
        "python": platform.python_version(),
        **{library: _version(library) for library in libraries},
    }


def cpuinfo() -> dict[str, str]:
    """What ``/proc/cpuinfo`` says of the first processor; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def cpu_name(fields: dict[str, str]) -> str | None:
    """Name of the processor, with family and model where the name alone tells little."""
    name = fields.get("model name") or platform.processor() or platform.machine()
    family = [f"family {fields['cpu family']}", f"model {fields['model']}"] if "cpu family" in fields else []
    return f"{name} ({' '.join(family)})" if family and name else name or None


def instruction_sets(fields: dict[str, str]) -> list[str]:
    """Those that matter for the speed of a network."""
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return [name for name in _ISA if name in flags]


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container where one is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()[:2]
        cores = min(cores, max(1, int(int(quota) / int(period))))
    return cores


def memory_bytes() -> int | None:
    """Memory of the machine, in bytes."""
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None


def system() -> str:
    """Operating system, its release, and the machine's architecture."""
    return f"{platform.system()} {platform.release()}".strip() + f" ({platform.machine()})"


def _version(library: str) -> str | None:
    loaded = getattr(sys.modules.get(library), "__version__", None)
    if loaded is not None:
        return str(loaded)
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _threads(cores: int) -> int:
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) > 0 else cores
