"""What the README and the docs show must work: Python blocks are run, commands are parsed, settings files are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHER_TOOLS = ("make", "pip", "git", "cd", "source", "#", "python")


def _blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def _commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        indented = re.findall(r"^    fewer .*$", page.read_text("utf-8"), re.MULTILINE)
        for body in [*_blocks(page, "bash"), *indented]:
            for line in body.replace("\\\n", " ").splitlines():
                if line.strip():
                    yield page.name, line.split("  #")[0].strip()


@pytest.mark.parametrize("page", [p for p in PAGES if _blocks(p, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page share their names, as a reader who types them in order would."""
    import torch

    if page.name == "segment.md":
        pytest.importorskip("monai", reason="needs the [medical] extra")
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    names: dict[str, object] = {"__name__": "__example__"}
    for number, body in enumerate(_blocks(page, "python"), 1):
        exec(compile(body, f"{page.name}, Python block {number}", "exec"), names)


@pytest.mark.parametrize(("page", "command"), list(_commands()))
def test_commands_parse(page: str, command: str) -> None:
    """Every command that the docs show is one that the command line understands."""
    import shlex

    from fewer.cli.app import VERBS, app_for

    words = shlex.split(command)
    if words[0] != "fewer":
        assert words[0].startswith(OTHER_TOOLS), f"{page}: what is {command!r}?"
        return
    verb = words[1]
    assert verb in VERBS or verb in ("--help", "--version", "--install-completion"), f"{page}: {command!r}"
    app_for(words[1:]).parse_args(words[1:], exit_on_error=False, print_error=False)


def test_settings_files_are_valid(tmp_path: Path) -> None:
    from fewer.cli.config import resolve

    blocks = [(page, body) for page in PAGES for body in _blocks(page, "toml")]
    assert blocks
    for number, (_page, body) in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(body)
        resolve({}, config=file, environ={})


def test_the_plan_that_is_shown_is_one() -> None:
    from fewer.core.plan import Plan

    for page in PAGES:
        for body in _blocks(page, "json"):
            Plan.from_json(body)


EXAMPLES = sorted((ROOT / "examples").glob("[!_]*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_examples_run(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says something, and leaves its picture where the command line says."""
    import runpy

    if "segment" in script.read_text("utf-8"):
        pytest.importorskip("scipy", reason="needs scipy")
    monkeypatch.setattr("sys.argv", [str(script), str(tmp_path)])
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out
    assert "keep(figure" not in script.read_text("utf-8") or list(tmp_path.glob(f"{script.stem}.*"))


def test_the_gallery_shows_every_example_and_nothing_else() -> None:
    page = (ROOT / "docs" / "examples.md").read_text("utf-8")
    for script in EXAMPLES:
        assert f"examples/{script.name}" in page
    for picture in re.findall(r"images/examples/[\w.]+", page):
        assert (ROOT / "docs" / picture).is_file()
