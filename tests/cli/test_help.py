"""The help: every verb under one heading, few options at first, all of them on demand, examples that parse."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fewer.cli.app import VERBS, app_for, with_switches
from fewer.cli.help import COMMON, EXAMPLES, GROUPS
from tests.cli.conftest import Told

Fewer = Callable[..., Told]


def test_every_verb_stands_under_one_heading() -> None:
    listed = [verb for verbs in GROUPS.values() for verb in verbs]
    assert sorted(listed) == sorted(VERBS)
    assert {*COMMON} <= {*VERBS} and {*EXAMPLES} == {*VERBS}


def test_each_verb_takes_one_line_of_a_narrow_terminal(fewer: Fewer) -> None:
    told = fewer("--help").out
    for heading, verbs in GROUPS.items():
        assert heading in told
        for verb in verbs:
            assert any(verb in line and VERBS[verb] in line for line in told.splitlines()), verb
    assert "Exit codes" in told and "--install-completion" in told


@pytest.mark.parametrize("verb", sorted(COMMON))
def test_the_short_help_shows_options_that_exist_and_says_where_the_rest_is(fewer: Fewer, verb: str) -> None:
    task = ("--task", "classify") if verb == "train" else ()
    short, full = fewer(verb, *task, "--help"), fewer(verb, *task, "--help-all")
    assert (short.code, full.code) == (0, 0)
    assert " ".join(("fewer", verb, *task, "--help-all")) in short.out and "All options" not in full.out
    assert "--debug" not in short.out and "--debug" in full.out
    assert len(short.out.splitlines()) < 0.75 * len(full.out.splitlines())


def test_common_options_are_spelt_as_in_the_full_help(fewer: Fewer) -> None:
    full = {verb: fewer(verb, "--help-all").out for verb in COMMON}
    full["train"] += "".join(
        fewer("train", "--task", task, "--help-all").out for task in ("segment", "quality", "gait")
    )
    full["train"] += fewer("train", "--task", "classify", "--help-all").out
    for verb, names in COMMON.items():
        assert [name for name in names if name not in full[verb]] == []


@pytest.mark.parametrize("command", [one for found in EXAMPLES.values() for one in found])
def test_examples_of_the_help_parse(command: str) -> None:
    words = shlex.split(command)[1:]
    app_for(words).parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("verb", [*VERBS, "train --task quality"])
def test_every_option_is_one_paragraph_and_its_default_a_word(
    fewer: Fewer, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line ends of a docstring stood in the middle of sentences, and switches had the default ``False``."""
    monkeypatch.setenv("COLUMNS", "1000")
    told = fewer(*verb.split(), "--help-all").out
    assert not [line for line in told.splitlines() if re.match(r"│ {8,}\S", line)]
    assert not [word for word in ("False]", "True]", "[None]", "[]", "--empty-") if word in told]


@pytest.mark.parametrize("words", [("--readings", "off"), ("--readings=no",), ("--readings=false", "--out", "on")])
def test_a_switch_that_is_on_can_be_turned_off(words: tuple[str, ...]) -> None:
    """As docs/quality.md says; the word behind it was one too many."""
    line = ["tune", "records.json", *words]
    _, bound, _ = app_for(line).parse_args(with_switches(line), exit_on_error=False, print_error=False)
    assert bound.kwargs["settings"].readings is False
    assert with_switches(["train", "yes", "--task", "quality"]) == ["train", "yes", "--task", "quality"]


def test_an_unknown_option_points_to_all_of_them(fewer: Fewer) -> None:
    told = fewer("compress", "net.py:net", "--patern", "2:4")
    assert "did you mean --pattern?; see fewer compress --help-all" in told.err


@pytest.mark.parametrize(
    ("verb", "wrong", "told"),
    [
        ("train", "--model", "--model; here it is called --network;"),
        ("adapt", "--model", "--model; here it is called --network;"),
        ("select", "--model", "--model; here it is called --features;"),
        ("compress", "--alocator", "--alocator; did you mean --allocator?;"),
        ("compress", "--calib", "--calib; did you mean --calibration?;"),
        ("export", "--model", "--model; see"),
        ("plan", "--time", "--time; see"),
    ],
)
def test_an_unknown_option_gets_a_near_one_or_none(fewer: Fewer, verb: str, wrong: str, told: str) -> None:
    """``fewer train DATA --model X`` was asked whether it meant --time."""
    found = fewer(verb, "here", wrong, "x")
    assert found.code == 2 and f"unknown option: {told}" in found.err


def test_a_misspelt_value_of_a_setting_has_its_neighbour(fewer: Fewer) -> None:
    told = fewer("compress", "net.py:net", "--images", "photos", "--budget", "weights=50%", "--allocator", "lampp")
    assert (told.code, told.err) == (2, "error: command line: allocator cannot be 'lampp'; did you mean 'lamp'?\n")


def test_short_options(fewer: Fewer) -> None:
    told = fewer("compress", "net.py:net", "-i", "photos", "-b", "weights=50%", "-o", "somewhere", "--dry-run")
    assert told.code == 0 and "out somewhere" in told.out


def test_quiet_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    from fewer.cli.flags import Shared
    from fewer.cli.progress import RichProgress, terminal_progress
    from fewer.core.progress import SILENT

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    Shared(quiet=True)
    assert terminal_progress() is SILENT
    Shared()
    assert isinstance(terminal_progress(), RichProgress)


def test_completion_is_installed_for_the_shell_at_hand(
    fewer: Fewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert fewer("--install-completion").code == 0
    script = tmp_path / ".local/share/bash-completion/completions/fewer"
    assert "--budget" in script.read_text() and "compress" in script.read_text()


@pytest.mark.parametrize("words", [("compress", "net.py:net", "--images=photos"), ("plan", "run"), ("demo",)])
def test_a_share_without_its_sign_is_asked_about(fewer: Fewer, words: tuple[str, ...]) -> None:
    """It was taken for fifty weights in all."""
    told = fewer(*words, "--budget=weights=50")
    assert told.code == 2 and "weights=50%" in told.err and "weights=0.05k" in told.err


def test_a_misspelt_demo_has_its_neighbour(fewer: Fewer) -> None:
    assert "did you mean 'gait'?" in fewer("demo", "gaitt").err
    assert "'fewer/mobilenet-v2'" in fewer("demo", "mobilenet-v2").err
