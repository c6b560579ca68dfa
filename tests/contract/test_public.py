"""What ``import fewer`` offers: a function for every verb, each with its parameters and an example."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import fewer
from fewer.cli.app import VERBS

OTHERWISE = {
    "eval": ("evaluate",),
    "list": ("list_names",),
    "info": ("info", "match_table"),
    "report": ("report", "joint_report"),
    "private": ("private_compile", "private_keys", "private_query", "private_service"),
    "study": ("study_convert", "study_delete", "study_export", "study_new", "study_serve", "study_status"),
    "demo": (),
}
"""Functions of the verbs whose function has another name; the demo is for the command line alone."""

FUNCTIONS = [name for name in fewer.__all__ if inspect.isfunction(getattr(fewer, name))]
SRC = Path(fewer.__file__).parent


def test_every_verb_has_its_function_and_every_function_its_verb() -> None:
    found = {name for verb in VERBS for name in OTHERWISE.get(verb, (verb,))}
    assert found | {"load"} == set(FUNCTIONS)
    page = (SRC.parents[1] / "docs" / "api.md").read_text("utf-8")
    assert [name for name in FUNCTIONS if f".{name}\n" not in page] == []


def test_dir_lists_what_is_public_and_nothing_else() -> None:
    assert dir(fewer) == sorted(fewer.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_names_its_parameters_and_has_an_example(name: str) -> None:
    text = inspect.getdoc(getattr(fewer, name)) or ""
    told = text.partition("\nParameters\n")[2]
    parameters = inspect.signature(getattr(fewer, name)).parameters
    assert [one for one in parameters if not re.search(rf"^[*\w, ]*\b{one}\b([*\w, ]*$| : )", told, re.MULTILINE)] == []
    assert "fewer." in text.partition("\nExamples\n")[2] or f"{name}(" in text.partition("\nExamples\n")[2]


def test_a_result_that_speaks_in_lines_does_so_in_a_notebook_too() -> None:
    """Its ``repr`` is what the command line says, not its fields."""
    mute = []
    for path in sorted(SRC.rglob("*.py")):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "def lines(" in text else ():
            if isinstance(node, ast.ClassDef):
                methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
                bases = {ast.unparse(base) for base in node.bases}
                if {"lines", "to_dict"} <= methods and not bases & {"Told", "Shown", "Protocol"}:
                    mute.append(f"{path.relative_to(SRC)}: {node.name}")
    assert mute == []
