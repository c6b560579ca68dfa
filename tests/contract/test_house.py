"""Rules of the house that can be read off the sources: how long a thing may be, and what stays in its module."""

from __future__ import annotations

import ast
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
                first, said = node.body[0], ast.get_docstring(node)
                docstring = 1 + (first.end_lineno or 0) - first.lineno if said is not None else 0
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


def test_every_room_says_in_one_sentence_what_belongs_in_it():
    rooms = [path for path in SRC.iterdir() if (path / "__init__.py").is_file()]
    silent = [room.name for room in rooms if not ast.get_docstring(ast.parse((room / "__init__.py").read_text()))]
    assert len(rooms) > 20 and silent == []
