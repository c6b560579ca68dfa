"""Memory of this machine, and of this process."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_memory", "keep_freed_memory"]

# of mallopt(3)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_MIB = 2**20
_CHOSEN = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_"}  # what a user may have set
_lock = threading.Lock()
_users = 0


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


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let this process keep the memory of freed tensors for the next ones, while long work goes on.

    The C library gives every tensor of more than 32 MiB back to the system when it is freed, and the system has to
    clear the pages of the next one. In forward passes of a convolutional network with a batch of images that is a
    third of the time. Afterwards what is free goes back to the system. Does nothing where the C library is not glibc,
    or where ``MALLOC_MMAP_THRESHOLD_``, ``MALLOC_MMAP_MAX_`` or ``MALLOC_TRIM_THRESHOLD_`` say what the user wants.

    Examples
    --------
    >>> with keep_freed_memory():
    ...     pass
    """
    global _users
    library = None if _CHOSEN & set(os.environ) else _glibc()
    if library is None:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            _keep(library)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _give_back(library)


@functools.cache  # the version is read out of the interpreter's file
def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _keep(library: ctypes.CDLL) -> None:
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    library.mallopt(_TOP_PAD, 64 * _MIB)
    if not library.mallopt(_MMAP_THRESHOLD, 2**30):
        library.mallopt(_MMAP_MAX, 0)  # an older glibc takes no threshold over 32 MiB


def _give_back(library: ctypes.CDLL) -> None:
    # 32 MiB and twice of it is where glibc's own thresholds end after some large tensors
    library.mallopt(_MMAP_THRESHOLD, 32 * _MIB)
    library.mallopt(_TRIM_THRESHOLD, 64 * _MIB)
    library.mallopt(_TOP_PAD, 128 * 1024)
    library.mallopt(_MMAP_MAX, 65536)
    library.malloc_trim(0)
