"""Free memory of this machine."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["free_memory"]


def free_memory() -> int | None:
    """Bytes that this process may still take, also inside a container; None where that cannot be found out.

    Examples
    --------
    >>> (free_memory() or 1) > 0
    True
    """
    found = []
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
        limit = Path("/sys/fs/cgroup/memory.max")
        if limit.is_file() and (text := limit.read_text("ascii").strip()).isdecimal():
            used = int(Path("/sys/fs/cgroup/memory.current").read_text("ascii"))
            found.append(int(text) - used)
    except (OSError, ValueError):
        pass
    if not found and hasattr(os, "sysconf"):
        try:
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
        except (ValueError, OSError):
            return None
    return max(0, min(found)) if found else None
