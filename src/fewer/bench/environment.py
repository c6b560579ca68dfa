"""The stamp of a bench: machine, the instruction sets that matter here, load, and every runtime's version."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewer import __version__

__all__ = ["environment"]

_LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "openvino", "nncf")
_ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8", "asimd", "sve")


def environment(threads: Sequence[int], pinned: bool) -> dict[str, Any]:
    """Describe the machine and the libraries behind the numbers; None where it cannot be found out.

    Examples
    --------
    >>> environment([1], pinned=True)["threads"]
    [1]
    """
    fields = _cpuinfo()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "fewer": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
        "os": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "cpu": _cpu_name(fields),
        "isa": [name for name in _ISA if name in flags],
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": list(threads),
        "pinned": pinned and sys.platform.startswith("linux"),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_bytes": _memory(),
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _cpu_name(fields: dict[str, str]) -> str | None:
    name = fields.get("model name") or platform.processor() or platform.machine()
    family = [f"family {fields['cpu family']}", f"model {fields['model']}"] if "cpu family" in fields else []
    return f"{name} ({' '.join(family)})" if family and name else name or None


def _memory() -> int | None:
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None
