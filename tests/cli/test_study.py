"""Study on the command line: actions with their neighbour, and what each of them needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewer.tasks.quality.records import read_records


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sevre", "s"], "did you mean 'serve'"),
        (["new", "s"], "which photos?"),
        (["delete", "s"], ""),
        (["status", "nowhere"], "nowhere"),
    ],
)
def test_what_is_missing_is_told(fewer, words, told: str) -> None:
    found = fewer("study", *words)
    assert found.code == 2 and told in found.err and not Path("s").exists()


def test_a_dry_run_makes_nothing(fewer) -> None:
    assert "nothing is written" in fewer("study", "new", "s", "--images=photos", "--dry-run").out
    assert not Path("s").exists()


def test_a_dry_run_of_a_page_makes_nothing(fewer) -> None:
    told = fewer("study", "status", "s", "--out=page", "--dry-run", "--json")
    assert told.code == 0 and json.loads(told.out)["dry_run"] and not Path("page").exists()


def test_a_server_says_where_it_is(fewer, monkeypatch) -> None:
    def serve(*_: object, tell, **__: object) -> None:
        tell("2 of 9 photos are gone")
        tell("http://[::1]:8000/  (Ctrl-C stops; nothing is lost)")

    monkeypatch.setattr("fewer.verbs.study.study_serve", serve)
    assert "http://[::1]:8000/  (" in fewer("study", "serve", "s").out
    told = fewer("study", "serve", "s", "--json")
    assert json.loads(told.out) == {"url": "http://[::1]:8000/"} and "photos are gone" in told.err


def written(place: Path, values: object) -> Path:
    place.write_text(json.dumps(values))
    return place


def test_texts_become_conversations_on_the_command_line(fewer, tmp_path: Path) -> None:
    rows = [
        {"image": f"{i}.png", "rater": "r", "description": "The cat is very blurry.", "conclusion": "It is poor."}
        for i in range(3)
    ]
    place = written(tmp_path / "pathways.json", rows)
    banned = written(tmp_path / "q.json", [{"img_path": "2.png", "question": "Sharp?", "candidates": ["Yes", "No"]}])
    done = fewer("study", "convert", str(place), "--evaluation", str(banned), "--out", str(tmp_path / "r.json"))
    assert done.code == 0 and "left out 1: an image of an evaluation set" in done.out
    assert {record.image for record in read_records(tmp_path / "r.json")} == {"0.png", "1.png"}
    again = fewer("study", "convert", str(place), "--out", str(tmp_path / "r.json"))
    assert again.code == 2 and "exists already" in again.err
    asked = fewer("study", "convert", str(place), "--writer", "http://x/v1", "--out", str(tmp_path / "s.json"))
    assert asked.code == 2 and "--writer-model" in asked.err


@pytest.mark.parametrize(("more", "count"), [("", 2), (",0.6", 20)])
def test_opinions_become_rating_words(fewer, tmp_path: Path, more: str, count: int) -> None:
    (tmp_path / "mos.csv").write_text(f"file,score,std\na.png,1{more}\nb.png,5{more}\n")
    done = fewer("study", "convert", str(tmp_path / "mos.csv"), "--out", str(tmp_path / "r.json"))
    assert done.code == 0 and len(read_records(tmp_path / "r.json")) == count


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["status", "s", "--rater=r1"],
            "--rater has no meaning for fewer study status; it is a flag of: export delete",
        ),
        (["export", "s", "--images=p"], "--images has no meaning for fewer study export; it is a flag of: new serve"),
        (["serve", "s", "--raters=3"], "--raters has no meaning for fewer study serve; it is a flag of: new"),
        (["new", "s", "--images=p", "--pairs=3"], "--pairs has no meaning for fewer study new"),
    ],
)
def test_what_would_be_ignored_is_refused(fewer, words, told: str) -> None:
    """``fewer study status s --rater r1`` told of all raters."""
    found = fewer("study", *words)
    assert found.code == 2 and told in found.err
