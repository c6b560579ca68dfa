"""Real public data beside the checkout, which the project does not carry; see each set's licence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["shared_data"]


def shared_data(name: str) -> Path:
    """A file of the shared data; the test is skipped where it is absent.

    ``FEWER_SHARED_DATA`` names the folder; by default it is looked for beside the checkout.
    """
    here = Path(__file__).resolve().parents[2]
    places = [Path(p) for p in (os.environ.get("FEWER_SHARED_DATA"),) if p] + [here.parent / "shared" / "data"]
    for place in places:
        if (place / name).exists():
            return place / name
    pytest.skip(f"the shared data {name} is absent; FEWER_SHARED_DATA names its folder")
