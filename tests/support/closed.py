"""A folder that may not be listed, for root too, who may list every folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

__all__ = ["refuse_to_list"]


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on ``folder`` cannot be listed, as without permission."""
    scandir = os.scandir

    def closed(place="."):
        if Path(os.fsdecode(place)) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", closed)
