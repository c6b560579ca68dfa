"""The stamp of a bench: machine, the instruction sets that matter here, load, and every runtime's version."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from fewer.report.stamp import cpu_name, cpuinfo, instruction_sets, memory_bytes, system, usable_cores, versions

__all__ = ["environment"]

_LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "openvino", "nncf")


def environment(threads: Sequence[int], pinned: bool) -> dict[str, Any]:
    """Describe the machine and the libraries behind the numbers; None where it cannot be found out.

    Examples
    --------
    >>> environment([1], pinned=True)["threads"]
    [1]
    """
    fields = cpuinfo()
    return {
        **versions(*_LIBRARIES),
        "os": system(),
        "cpu": cpu_name(fields),
        "isa": instruction_sets(fields),
        "cpus": usable_cores(),
        "threads": list(threads),
        "pinned": pinned and sys.platform.startswith("linux"),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_bytes": memory_bytes(),
    }
