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


def test_a_page_of_what_was_found(fewer) -> None:
    assert fewer("doctor", "data", "--page=fine.html").code == 0
    assert "Nothing is wrong" in Path("fine.html").read_text() and Path("fine.json").is_file()
    again = fewer("doctor", "data", "--page=fine.html")
    assert again.code == 2 and "exists already" in again.err
    assert fewer("doctor", "data", "--page=fine.txt").code == 2
    Path("data/images/case0.png").write_bytes(b"broken")
    told = fewer("doctor", "data", "--page=fine.html", "--overwrite")
    assert told.code == 3 and "page    fine.html" in told.out
    page = Path("fine.html").read_text()
    assert "1 error" in page and "a file cannot be read" in page and "case0" in page
