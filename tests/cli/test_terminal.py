"""Nothing that is printed acts on a terminal."""

from __future__ import annotations

import io
import json
import sys

import pytest
from rich.text import Text

from fewer.cli.terminal import guard_terminal, in_json, printable, safe_console

NASTY = ["\x1b[31mred", "\x9b2J", "a\rb", "title\x07", "\u202egnp.exe", "\udcff"]


@pytest.mark.parametrize("text", NASTY)
def test_what_moves_a_cursor_or_turns_text_around_is_spelled_out(text):
    told = printable(text)
    assert told.isprintable() and told != text and printable(told) == told
    assert json.loads(in_json(json.dumps(text, ensure_ascii=False))) == text


def test_lines_tabs_and_letters_of_any_script_stay():
    text = "naïve\tΩ 漢字\n"
    assert printable(text) == text


def test_a_guarded_stream_spells_out_and_is_guarded_once(monkeypatch):
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stdout", plain)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    guard_terminal()
    guarded = sys.stdout
    guard_terminal()
    print("\x1b[31mred")
    assert sys.stdout is guarded and plain.getvalue() == "\\x1b[31mred\n"


def test_words_in_brackets_and_between_colons_are_words(monkeypatch):
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stdout", plain)
    name = "head[bold][/] net.py:smile:"
    safe_console(width=100).print(f"layer {name}")
    assert name in plain.getvalue()


def test_a_console_of_ours_has_colours_of_its_own_and_none_of_a_name(monkeypatch):
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stdout", plain)
    safe_console(force_terminal=True, color_system="standard").print("file \x1b[2Jname", Text("ours", "bold"))
    assert "\x1b[2J" not in plain.getvalue() and "\x1b[1mours" in plain.getvalue()
