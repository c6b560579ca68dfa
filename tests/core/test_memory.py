"""What this process may take of the machine's memory, and what it keeps."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from fewer.core.memory import free_memory, keep_freed_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="thresholds of malloc are glibc's")

FAULTS = """
import resource, torch
from fewer.core.memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(12 * 2**20)  # 48 MiB, so more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
outside = faults()
with keep_freed_memory():
    with keep_freed_memory():
        faults()
    inside = faults()
after = faults()
print(outside, inside, after)
"""


def test_free_memory_is_a_number_of_bytes():
    free = free_memory()
    assert free is None or free > 2**20


def faults(**environment: str) -> list[int]:
    """Page faults before, inside and after, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return [int(word) for word in done.stdout.split()]


@glibc
def test_memory_is_kept_inside_and_given_back_after():
    outside, inside, after = faults()
    assert inside < outside / 4
    assert after > inside


@glibc
def test_what_the_user_set_stays():
    outside, inside, _ = faults(MALLOC_MMAP_THRESHOLD_="1048576")
    assert inside > outside / 4


def test_it_ends_when_the_work_fails():
    with pytest.raises(ValueError, match="inside"), keep_freed_memory():
        raise ValueError("inside")
    with keep_freed_memory(), keep_freed_memory():  # and can be asked for again
        pass
