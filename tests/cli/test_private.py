"""Private on the command line: who needs what."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compile", "net.py:net"], "--out FOLDER"),
        (["compile", "net.py:net", "--out=c"], "--images FOLDER"),
        (["keys", "c/public.json"], "--out FOLDER"),
        (["query", "keys"], "which images?"),
    ],
)
def test_what_is_missing_is_told(fewer, words, told: str) -> None:
    found = fewer("private", *words)
    assert found.code == 2 and told in found.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["keys", "c/public.json", "--out=k", "--preset=joint"], "--preset has no meaning for fewer private keys"),
        (
            ["serve", "c", "--budget=he=0.5x"],
            "--budget has no meaning for fewer private serve; it is a flag of: compile",
        ),
        (["query", "k", "a.png", "--port=9"], "--port has no meaning for fewer private query; it is a flag of: serve"),
        (["query", "k", "a.png", "--out=o"], "--out has no meaning for fewer private query"),
        (["compile", "net.py:net", "--images=p", "--out=c", "--server=x"], "it is a flag of: query"),
        (["compile", "net.py:net", "photos", "--out=c", "--images=p"], "'photos' is too much"),
    ],
)
def test_what_would_be_ignored_is_refused(fewer, words, told: str) -> None:
    """A budget for keys, or a port for a query, was taken and forgotten without a word."""
    found = fewer("private", *words)
    assert found.code == 2 and told in found.err


def test_a_server_says_where_it_is_or_that_the_port_is_taken(fewer, monkeypatch) -> None:
    """It said nothing at all, and a taken port ended as a defect of the program."""
    uvicorn = pytest.importorskip("uvicorn", reason='the server needs pip install "fewer[private]"')
    monkeypatch.setattr("fewer.verbs.private.private_service", lambda _: None)
    monkeypatch.setattr(uvicorn.Server, "run", lambda _: None)
    assert fewer("private", "serve", "circuit").out.startswith("http://127.0.0.1:8765/  (")
    assert json.loads(fewer("private", "serve", "circuit", "--json").out) == {"url": "http://127.0.0.1:8765/"}

    def taken(_: object) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(uvicorn.Server, "run", taken)
    told = fewer("private", "serve", "circuit", "--port=8766")
    assert told.code == 2 and "cannot listen at 127.0.0.1:8766" in told.err


def test_another_device_is_refused(fewer) -> None:
    told = fewer("private", "serve", "circuit", "--device=cuda")
    assert told.code == 2 and "--device cpu" in told.err


def test_an_action_that_is_none(fewer) -> None:
    assert fewer("private", "compil", "net.py:net").code == 2


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (
            "c/public.json",
            "c holds no public.json; make it with: fewer private compile MODEL --images FOLDER --out c\n",
        ),
        ("notes.txt", "notes.txt: the description of the circuit is not valid JSON"),
    ],
)
def test_the_file_of_a_circuit_is_named(fewer, tmp_path, monkeypatch, what: str, told: str) -> None:
    """The fix that was told made a folder public.json, and a damaged file had no name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    found = fewer("private", "keys", what, "--out=k")
    assert found.code == 2 and told in found.err
