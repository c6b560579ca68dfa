"""Which machine and which kernels a timing belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from fewer.core.stamp import environment
from fewer.kernels import native

__all__ = ["cache_folder", "device_facts", "device_key", "differences"]

# what changes a timing; a profile with other values is of another device
_DECISIVE = ("cpu", "isa", "torch", "kernels", "threads")


def device_facts(threads: int | None = None) -> dict[str, Any]:
    """CPU, instruction set, versions and the kernel library that timings depend on.

    Parameters
    ----------
    threads
        Threads of every timing; by default what torch uses now.

    Examples
    --------
    >>> sorted(device_facts(1))
    ['cores', 'cpu', 'isa', 'kernels', 'memory_bytes', 'os', 'threads', 'torch']
    """
    threads = threads or torch.get_num_threads()
    found = environment(threads)
    facts = {name: found[name] for name in ("cores", "cpu", "isa", "memory_bytes", "os", "torch")}
    return {**facts, "kernels": _kernels(), "threads": threads}


def _kernels() -> str:
    """Hash of the native library in use and its variant; ``none`` where it is not built."""
    if not native.available():
        return "none"
    library = native.library()
    digest = hashlib.sha256(Path(library.path).read_bytes()).hexdigest()[:12]
    return f"{digest} {library.isa}"


def device_key(facts: dict[str, Any]) -> str:
    """A short hash of what decides about timings.

    Examples
    --------
    >>> len(device_key(device_facts(1)))
    16
    """
    text = json.dumps({name: facts.get(name) for name in _DECISIVE}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(facts: dict[str, Any], others: dict[str, Any]) -> list[str]:
    """What differs between two devices, as ``name: this, not that``.

    Examples
    --------
    >>> differences({"cpu": "A", "threads": 1}, {"cpu": "B", "threads": 1})
    ['cpu: A, not B']
    """
    return [f"{n}: {facts.get(n)}, not {others.get(n)}" for n in _DECISIVE if facts.get(n) != others.get(n)]


def cache_folder() -> Path:
    """Where profiles of this user live: ``$XDG_CACHE_HOME/fewer/profiles``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fewer" / "profiles"
