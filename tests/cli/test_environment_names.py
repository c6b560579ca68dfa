"""Variables of the environment that begin like settings and are none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fewer.cli.config import check_environment
from fewer.core.errors import FewerError

ROOT = Path(__file__).parents[2]


def test_what_our_own_scripts_and_tests_read_does_not_stop_a_command() -> None:
    files = [p for folder in ("benchmarks", "tests", "src") for p in (ROOT / folder).rglob("*.py")]
    read = re.compile(r"environ(?:\.get\(|\[)\"(FEWER_[A-Z_]+)\"")
    names = {name for path in files for name in read.findall(path.read_text(encoding="utf-8"))}
    assert {"FEWER_SHARED_DATA", "FEWER_SCALESIM", "FEWER_NATIVE_LIB"} <= names
    check_environment(dict.fromkeys(names, "x"))
    with pytest.raises(FewerError, match="FEWER_SHARED_DATAA; did you mean 'FEWER_SHARED_DATA'"):
        check_environment({"FEWER_SHARED_DATAA": "x"})
