"""Doctor: an exit code for scripts, and a copy only where it was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tasks.segment.simulated import write_folder


@pytest.fixture(autouse=True)
def _data(tmp_path) -> None:
    write_folder(tmp_path / "data", 5, (32, 32))


def test_errors_have_an_exit_code_of_their_own(fewer) -> None:
    assert fewer("doctor", "data").code == 0
    Path("data/images/case0.png").write_bytes(b"broken")
    told = fewer("doctor", "data")
    assert told.code == 3 and "case0" in told.out


def test_a_copy_is_made_where_it_is_asked_for(fewer) -> None:
    assert fewer("doctor", "data", "--fix").code == 2
    assert "--fix" in fewer("doctor", "data", "--out=copy").err
    shutil.copy("data/images/case0.png", "data/images/twin.png")
    shutil.copy("data/masks/case0.png", "data/masks/twin.png")
    assert fewer("doctor", "data", "--fix", "--out=copy").code == 0
    assert len(list(Path("copy/imagesTr").iterdir())) == 5
