"""The environment stamp: on what machine, and with which versions, the numbers were made."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from fewer import __version__

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


def environment(threads: int | None = None) -> dict[str, str | int | float | None]:
    """Describe this machine and the libraries that count for a measurement.

    torch is not imported: a library's version is read from the module if it is loaded already, otherwise from its
    package metadata.

    Parameters
    ----------
    threads : int, optional
        Threads that the run used. By default torch is asked if it is loaded, otherwise ``OMP_NUM_THREADS`` counts,
        otherwise the cores that this process may use.

    Returns
    -------
    dict
        ``fewer python torch numpy cpu isa cores threads memory_bytes os``; None where it cannot be found out.

    Examples
    --------
    >>> sorted(environment(threads=2))
    ['cores', 'cpu', 'fewer', 'isa', 'memory_bytes', 'numpy', 'os', 'python', 'threads', 'torch']
    """
    fields, cores = cpuinfo(), usable_cores()
    return {
        **versions("torch", "numpy"),
        "cpu": cpu_name(fields),
        "isa": " ".join(instruction_sets(fields)) or None,
        "cores": cores,
        "threads": threads if threads is not None else _threads(cores),
        "memory_bytes": memory_bytes(),
        "os": system(),
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
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


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
    return int(asked) if asked.isdigit() and int(asked) > 0 else cores
