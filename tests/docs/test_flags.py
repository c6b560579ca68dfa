"""A flag that a page or a message names is one: of the verb that it stands behind, or of some verb or script."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from fewer.cli.app import VERBS
from fewer.cli.help import SYNONYMS
from tests.contract.test_one_name import all_flags

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "methods").glob("*.md")),
    *sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")),
    *sorted((ROOT / "examples").glob("*.py")),
]
SOURCES = sorted((ROOT / "src" / "fewer").rglob("*.py"))

CODE = re.compile(r"```.*?```|`[^`\n]+`|^ {4}fewer .*$", re.DOTALL | re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OF_ALL = frozenset({"--help", "--help-all", "--version", "--install-completion"})
OF_OTHERS = frozenset(
    {
        "--no-deps",
        "--force-reinstall",
        "--upgrade",
        "--extra-index-url",
        "--rm",
        "--user",
        "--build",
        "--logdir",
        "--role",
    }
)
"""Flags of pip, docker, cmake and TensorBoard that pages and messages name, and a variable of a style sheet."""
MEANT = frozenset(name for others in SYNONYMS.values() for name in others)
"""Names from elsewhere, which hints explain."""
GONE = re.compile(r"in place of `?--|was `?--|renamed|is now|are now|no longer|removed|instead of `?--")
"""A line of the change log that tells of a flag that is no more."""


@cache
def _flags() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for flag in all_flags():
        found[flag.verb].add(flag.name)
    return {verb: frozenset(names | OF_ALL) for verb, names in found.items()}


@cache
def _of_scripts() -> frozenset[str]:
    """Flags of the benchmarks and of the tools of the tests."""
    scripts = [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "tests" / "fuzz").glob("*.py")]
    return frozenset(name for path in scripts for name in re.findall(r'"(--[a-z][a-z-]+)"', path.read_text("utf-8")))


def _named(text: str) -> Iterator[tuple[str, str]]:
    """Every flag of a text, and the verb before it on the same line, or an empty text."""
    for line in text.splitlines():
        for match in FLAG.finditer(line):
            before = re.split(r"[;,|]|\. |&& ", line[: match.start()])[-1]
            verbs = [m[1] for m in re.finditer(r"\bfewer ([a-z]+)\b", before) if m[1] in VERBS]
            yield (verbs[-1] if verbs else ""), match[0]


@cache
def _known() -> frozenset[str]:
    return frozenset().union(*_flags().values(), _of_scripts(), OF_OTHERS, MEANT)


def _wrong(text: str) -> list[str]:
    return [
        f"fewer {verb or 'VERB'} has no {flag}"
        for verb, flag in _named(text)
        if flag not in (_flags()[verb] if verb else _known())
    ]


def _texts(path: Path) -> Iterator[str]:
    """Texts of a source file, with X for what is filled in later."""
    tree = ast.parse(path.read_text("utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_of_a_page(page: Path) -> None:
    text = page.read_text("utf-8")
    if page.name == "CHANGELOG.md":
        text = "\n".join(line for line in text.splitlines() if not GONE.search(line))
    if page.suffix == ".md":
        text = "\n".join(match[0] for match in CODE.finditer(text))
    assert _wrong(text) == []


def test_flags_of_messages_and_docstrings() -> None:
    """A hint that names a flag which is not there sends people round in circles."""
    found = {
        path.relative_to(ROOT).as_posix(): wrong
        for path in SOURCES
        if FLAG.search(path.read_text("utf-8"))
        and (wrong := [one for text in _texts(path) if "--" in text for one in _wrong(text)])
    }
    assert found == {}
