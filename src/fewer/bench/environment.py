"""The stamp of a bench: machine, the instruction sets that matter here, load, and every runtime's version."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

from fewer.report.stamp import cpuinfo, memory_bytes, system, usable_cores, versions

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
    fields = cpuinfo()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        **versions(*_LIBRARIES),
        "os": system(),
        "cpu": _cpu_name(fields),
        "isa": [name for name in _ISA if name in flags],
        "cpus": usable_cores(),
        "threads": list(threads),
        "pinned": pinned and sys.platform.startswith("linux"),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_bytes": memory_bytes(),
    }


def _cpu_name(fields: dict[str, str]) -> str | None:
    name = fields.get("model name") or platform.processor() or platform.machine()
    family = [f"family {fields['cpu family']}", f"model {fields['model']}"] if "cpu family" in fields else []
    return f"{name} ({' '.join(family)})" if family and name else name or None
