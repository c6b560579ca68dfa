"""Rules of the house that can be read off the sources: how long a thing may be, and what stays in its module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import fewer

SRC = Path(fewer.__file__).parent
LINES, FILE = 60, 500
"""Most lines of a function, docstring not counted, and of a file."""
LONG = {"kernels/triton_linear.py:_kernel"}
"""Functions that may be longer, each with its reason beside it: Triton compiles one body as it stands."""


@cache
def sources() -> list[tuple[str, str, ast.Module]]:
    files = sorted(SRC.rglob("*.py"))
    return [(path.relative_to(SRC).as_posix(), text, ast.parse(text)) for path in files if (text := path.read_text())]


def functions() -> Iterator[tuple[str, int]]:
    """Name and lines of every function."""
    for name, _, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                says = isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str)
                docstring = 1 + (first.end_lineno or 0) - first.lineno if says else 0
                yield f"{name}:{node.name}", 1 + (node.end_lineno or 0) - node.lineno - docstring


def test_no_function_is_longer_than_a_screen():
    assert {name for name, lines in functions() if lines > LINES} == LONG


def test_no_file_is_two_ideas():
    assert [name for name, text, _ in sources() if text.count("\n") > FILE] == []


def test_private_names_stay_in_their_module():
    crossing = []
    for name, _, tree in sources():
        modules = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fewer"):
                modules |= {alias.asname or alias.name for alias in node.names}
                private = [a.name for a in node.names if a.name.startswith("_") and not a.name.startswith("__")]
                crossing += [f"{name}: from {node.module} import {alias}" for alias in private]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                is_private = node.attr.startswith("_") and not node.attr.startswith("__")
                # a class may be asked for what is its own; modules have names in small letters
                if is_private and node.value.id.islower():
                    crossing.append(f"{name}: {node.value.id}.{node.attr}")
    assert crossing == []


def rooms() -> list[Path]:
    return [path for path in SRC.iterdir() if (path / "__init__.py").is_file()]


def test_every_room_says_in_one_sentence_what_belongs_in_it():
    silent = [room.name for room in rooms() if not ast.get_docstring(ast.parse((room / "__init__.py").read_text()))]
    assert len(rooms()) > 20 and silent == []


def test_the_page_of_the_house_names_every_room_and_no_other():
    page = (Path(__file__).parents[2] / "docs" / "where-things-are.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(room.name for room in rooms())


def test_files_that_the_page_of_the_house_names_are_there():
    page = (Path(__file__).parents[2] / "docs" / "where-things-are.md").read_text()
    named = [name for name in re.findall(r"`(\w+/[\w/]+\.py)`", page) if "NAME" not in name]
    assert len(named) > 10 and [name for name in named if not (SRC / name).is_file()] == []
