"""Tests mirror the sources: where a module is, its tests are found by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

import fewer

SRC, TESTS = Path(fewer.__file__).parent, Path(__file__).parents[1]

ROOMS = ("cli", "tasks/segment")
"""Rooms in which every module has a test file of its own."""

ELSEWHERE = {
    "cli/eval.py": "cli/test_train.py",
    "cli/predict.py": "cli/test_train.py",
    "tasks/segment/picture.py": "tasks/segment/test_files.py",
}
"""Modules whose tests stand in a file that needs them together with others."""


def modules() -> list[str]:
    found = [path.relative_to(SRC).as_posix() for room in ROOMS for path in sorted((SRC / room).glob("*.py"))]
    return [name for name in found if not name.endswith("__init__.py")]


@pytest.mark.parametrize("name", modules())
def test_a_module_has_tests_of_its_own(name: str) -> None:
    path = Path(name)
    wanted = TESTS / ELSEWHERE.get(name, f"{path.parent.as_posix()}/test_{path.name}")
    assert wanted.is_file() and "def test_" in wanted.read_text("utf-8"), f"write {wanted.relative_to(TESTS)}"
