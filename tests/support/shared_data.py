"""Real public data that lies beside the checkout; tests of it skip where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["shared_data"]


def shared_data(name: str) -> Path:
    """Path of a file or folder of the shared data, or a skip with a reason.

    ``FEWER_SHARED_DATA`` may name the folder; by default it is ``shared/data`` beside the checkout.
    """
    root = Path(os.environ.get("FEWER_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (root / name).exists():
        pytest.skip(f"the shared data {name} is not here; set FEWER_SHARED_DATA to its folder")
    return root / name
