"""One name for one thing: over all flags of all verbs, a meaning has one name, and a name has one kind of value."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from fewer.cli.app import VERBS, app_for
from fewer.cli.help import SYNONYMS
from fewer.tasks import TASKS

MEANINGS = {
    "--time": "how long something may take|seconds",
    "--learning-rate": "learning rate|^rate (after|at the first step)|how much a step changes",
    "--batch": r"(images|samples|sequences|conversations) (per|in a|at once)(?!.*model is used)(?!.*classes)",
    "--deploy-batch": "images at once.*model is used|images per call",
    "--threads": "threads",
    "--device": "where tensors live|where to train",
    "--seed": "random choice|chooses images",
    "--input-size": "side of (the input|a view)|pixels of a view",
    "--pattern": "patterns?,|block:",
    "--class-names": "class names",
    "--validate-share": "share of .*(that judges|choose the best state)",
    "--all-data": "trained as well",
    "--optimiser": "sgd",
    "--out": "where to write",
    "--overwrite": "^replace (what|these)",
    "--images": "^a? ?folder of (un)?(labelled )?(images|photos)|folder of the images",
}
"""The one flag of a meaning, and words of a help text that give the meaning away."""

OTHER = {
    ("train", "--momentum"): "a number of sgd",
    ("adapt", "--momentum"): "a number of sgd",
    ("tune", "--momentum"): "a number of sgd",
    ("study", "--pause-after"): "images that a person looks at",
    ("study", "--warn-after"): "images that a person looks at",
    ("study", "--per-rater"): "images that a person looks at",
}
"""Flags whose help has such words and means something else, and why."""

KINDS = {
    "--threads": "bench times several settings, so it takes 1,4 as well as 1",
    "--classes": "how many there are, or which are learnt",
    "--input-size": "one side in pixels, or channels and sides such as 1x28x28",
}
"""Names whose kind of value differs between verbs, and why that is no trap."""


@dataclass(frozen=True)
class Flag:
    verb: str
    name: str
    kind: str
    words: str


@cache
def all_flags() -> tuple[Flag, ...]:
    return tuple(_flags())


def _flags() -> Iterator[Flag]:
    of_tasks = ("train", "eval", "predict")
    lines = [(verb,) for verb in VERBS if verb not in of_tasks]
    lines += [(verb, "--task", task) for verb in of_tasks for task in TASKS]
    for line in lines:
        app = app_for(list(line))[line[0]]
        for argument in app.assemble_argument_collection(parse_docstring=True):
            for name in argument.names:
                if name.startswith("--") and not name.startswith("--no-"):
                    words = " ".join((argument.parameter.help or "").split())
                    yield Flag(line[0], name, _kind(argument.hint), words)


def _kind(hint: object) -> str:
    """Number, text or switch: whether a value may be left out (None) or repeated does not change what is typed."""
    text = str(hint)
    return next((kind for kind in ("bool", "float", "int") if kind in text), "text")


def test_all_verbs_were_walked_over() -> None:
    assert {flag.verb for flag in all_flags()} == set(VERBS)
    assert len({flag.name for flag in all_flags()}) > 100


@pytest.mark.parametrize("name", MEANINGS)
def test_a_meaning_has_one_name(name: str) -> None:
    meant = re.compile(MEANINGS[name], re.IGNORECASE)
    found = {(f.verb, f.name): f.words for f in all_flags() if meant.search(f.words) and f.name != name}
    assert {key: words for key, words in found.items() if key not in OTHER} == {}


@pytest.mark.parametrize("name", SYNONYMS)
def test_no_verb_has_a_synonym(name: str) -> None:
    names = {flag.name for flag in all_flags()}
    assert name in names and not names & {*SYNONYMS[name]}


def test_a_name_has_one_kind_of_value() -> None:
    kinds = defaultdict(lambda: defaultdict(set))
    for flag in all_flags():
        kinds[flag.name][flag.kind].add(flag.verb)
    assert {name: dict(found) for name, found in kinds.items() if len(found) > 1 and name not in KINDS} == {}


def test_nothing_is_switched_off_by_a_second_flag() -> None:
    """``--x`` and ``--no-x`` are two names for one thing."""
    assert not [
        f
        for line in VERBS
        for f in app_for([line])[line].assemble_argument_collection()
        if any(name.startswith("--no-") for name in f.names)
    ]


def test_what_is_excused_is_still_there() -> None:
    words = "|".join(MEANINGS.values())
    needed = {
        (f.verb, f.name) for f in all_flags() if f.name not in MEANINGS and re.search(words, f.words, re.IGNORECASE)
    }
    assert set(OTHER) == needed
    assert set(KINDS) <= {flag.name for flag in all_flags()}
