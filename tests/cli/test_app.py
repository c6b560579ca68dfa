"""The table of verbs: each has its file, a docstring for its help, and is imported only when it is needed."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fewer
from fewer.cli.app import VERBS, app_for

NAMES = {"eval": "eval_", "list": "list_"}
"""Verbs whose function cannot have their name, which Python has taken."""


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_a_file_whose_docstring_is_its_help(verb: str) -> None:
    module = importlib.import_module(f"fewer.cli.{verb}")
    function = getattr(module, NAMES.get(verb, verb))
    assert inspect.getdoc(function) and (module.__doc__ or "").startswith(f"``fewer {verb}``")
    assert app_for([verb])[verb] is not None


def test_the_table_needs_no_torch_and_no_verb() -> None:
    code = """
import sys
from fewer.cli.app import app_for
app_for([])
assert not {"torch", "fewer.cli.compress", "fewer.verbs.compress"} & set(sys.modules)
"""
    source = Path(fewer.__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), *filter(None, sys.path)])}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
