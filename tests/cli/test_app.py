"""The table of verbs: each has its file, a docstring for its help, and is imported only when it is needed."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fewer as library
from fewer.cli.app import VERBS, app_for, with_owners

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
    source = Path(library.__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), *filter(None, sys.path)])}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["recover", "run", "--rate=1"], "unknown option: --rate; here it is called --learning-rate"),
        (["train", "d", "--task=classify", "--lr=1"], "here it is called --learning-rate"),
        (["bench", "run", "--seconds=3"], "here it is called --time"),
        (["compress", "m", "--output=x"], "here it is called --out"),
    ],
)
def test_a_name_from_elsewhere_is_translated(fewer, words, told: str) -> None:
    found = fewer(*words)
    assert found.code == 2 and told in found.err


@pytest.mark.parametrize(
    ("sentence", "words", "more"),
    [
        ("too many; give less with --calibration", ["apply", "run"], " (--calibration is a flag of fewer compress"),
        ("too many; give less with --calibration", ["compress", "m"], ""),
        ("none; make one: fewer plan run --budget weights=50%", ["apply", "run"], ""),
        ("it needs timm; run: python -m pip install --no-deps timm", ["compress", "m"], ""),
        ("give --task", ["train", "data"], ""),
        ("give --task", ["no-verb"], ""),
    ],
)
def test_a_flag_of_another_verb_has_its_owner(sentence: str, words: list[str], more: str) -> None:
    told = with_owners(sentence, words)
    assert told.startswith(sentence + more) and (more or told == sentence)
