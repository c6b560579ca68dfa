"""What is read takes as much memory as the file has, and not as much as it may have."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from fewer.core.reading import read_bytes


def test_a_large_limit_takes_no_memory_for_a_small_file(tmp_path: Path) -> None:
    """Python takes memory for all that a read asks for, and a limit may be half of the machine's."""
    (tmp_path / "a").write_bytes(b"abc")
    tracemalloc.start()
    try:
        assert read_bytes(tmp_path / "a", 2**33) == b"abc"
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
