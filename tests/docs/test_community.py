"""Files that people look for in a repository: there, and not contradicting the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fewer

ROOT = Path(__file__).parents[2]


def test_the_citation_has_the_version_and_the_ten_papers() -> None:
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (.+)$", text, re.MULTILINE)[1] == fewer.__version__  # type: ignore[index]
    assert sorted(int(n) for n in re.findall(r"System (\d+)\.", text)) == list(range(1, 11))
    assert (
        len(re.findall(r"^  - type: ", text, re.MULTILINE))
        == len(re.findall(r"^    title: ", text, re.MULTILINE))
        == 10
    )


def test_the_citation_is_yaml() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert all({"type", "title", "authors", "year", "url"} <= set(one) for one in found["references"])
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert {"name", "description", "body"} <= set(yaml.safe_load(form.read_text("utf-8")))


def test_what_the_container_copies_exists() -> None:
    """The image cannot be built here: this holds its instructions against the repository."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    for name in [name for names in copied for name in names]:
        assert (ROOT / name).exists() and name in allowed
    extras = (ROOT / "pyproject.toml").read_text("utf-8")
    for extra in re.search(r'"\.\[([\w,]+)\]"', text)[1].split(","):  # type: ignore[index]
        assert re.search(rf"^{extra} = \[", extras, re.MULTILINE)


def test_the_container_installs_what_make_install_does() -> None:
    """Both stages have one Python that the package takes, a compiler builds, and what links to OpenMP finds it."""
    docker = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    make = (ROOT / "Makefile").read_text("utf-8")
    bases = re.findall(r"^FROM python:(\d+)\.(\d+)-slim", docker, re.MULTILINE)
    least = re.search(r'requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert len(bases) == 2 and len(set(bases)) == 1 and least is not None
    assert tuple(map(int, bases[0])) >= tuple(map(int, least.groups()))
    build, run = docker.split("\nFROM python", 2)[1:]
    assert " g++ " in build and " libgomp1 " in run
    extra = re.search(r"^install:\n\t@\$\(MAKE\)(?: -s)? setup EXTRAS=(\w+)$", make, re.MULTILINE)
    assert extra is not None and f'-c constraints.txt ".[{extra[1]}]"' in re.sub(r"\s+", " ", docker)
    for line in ("--no-deps -r requirements-assets.txt", "-c constraints.txt"):
        assert line in docker and line in make
    # what runs in it: our own command, by any user, who may write its caches
    assert re.search(r'^ENTRYPOINT \["fewer"\]$', run, re.MULTILINE) and " HOME=/tmp" in run
    said = re.findall(r"^#   (docker .+)$", docker, re.MULTILINE)
    assert [words.split()[1] for words in said] == ["build", "run"]
    from fewer.cli.app import VERBS

    assert said[1].split()[-2] == "fewer" and said[1].split()[-1] in VERBS
    assert f"`fewer {said[1].split()[-1]}`" in (ROOT / "README.md").read_text("utf-8")


def test_all_is_every_extra_of_a_user() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    table = text[text.index("[project.optional-dependencies]") : text.index("[project.scripts]")]
    extras = dict(re.findall(r"^(\w+) = \[(.+)\]", table, re.MULTILINE))
    named = set(re.search(r"fewer\[([\w,]+)\]", extras["all"])[1].split(","))  # type: ignore[index]
    through_use = set(re.search(r"fewer\[([\w,]+)\]", extras["use"])[1].split(","))  # type: ignore[index]
    assert named | through_use == set(extras) - {"all", "docs", "test", "ci", "dev", "gpu"}


def test_targets_of_the_makefile_that_pages_name() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "quickstart.md"):
        assert {*re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)} <= targets, page.name


def test_types_are_shipped() -> None:
    assert (ROOT / "src" / "fewer" / "py.typed").is_file()
