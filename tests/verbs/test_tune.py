"""Tuning in Python: the same checks as on the command line; tests/tasks/quality goes the whole way."""

from __future__ import annotations

from pathlib import Path

import pytest

import fewer
from fewer.core.errors import FewerError


def test_what_is_missing_or_misspelt_is_told(tmp_path: Path) -> None:
    with pytest.raises(FewerError, match="nowhere"):
        fewer.tune(tmp_path / "nowhere.json", out=tmp_path / "run")
    with pytest.raises(FewerError, match=r"fewer\.tune knows no 'overwritte'; did you mean 'overwrite'"):
        fewer.tune(tmp_path / "nowhere.json", overwritte=True)
    assert not (tmp_path / "run").exists()
