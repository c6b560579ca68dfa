"""Questions from files of others: each entry is read or named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewer.core.errors import FewerError
from fewer.tasks.quality.questions import read_questions

ENTRY = {"img_path": "a.jpg", "question": "Is it blurry?", "candidates": ["Yes", "No"], "correct_ans": "Yes"}


def write(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps([ENTRY, ENTRY | changes]))
    return path


def test_an_entry_is_read(tmp_path: Path) -> None:
    one = read_questions(write(tmp_path / "q.json", correct_ans="B"))[1]
    assert (one.image, one.options, one.answer) == ("a.jpg", ("Yes", "No"), 1)


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "b)", "[B]", "B.", "B:", 1, "No"])
def test_the_right_answer_is_read_in_all_its_forms(tmp_path: Path, answer: object) -> None:
    assert read_questions(write(tmp_path / "q.json", correct_ans=answer))[1].answer == 1


def test_options_may_be_by_small_letters(tmp_path: Path) -> None:
    one = read_questions(write(tmp_path / "q.json", candidates={"b": "No", "a": "Yes"}, correct_ans="b"))[1]
    assert (one.options, one.answer) == (("Yes", "No"), 1)


def test_a_question_may_be_about_several_images(tmp_path: Path) -> None:
    entry = read_questions(write(tmp_path / "q.json", img_path=["a.jpg", "b.jpg"]))[1]
    assert entry.images == ("a.jpg", "b.jpg")


@pytest.mark.parametrize("candidates", [3, None, "Yes", {"A": "Yes"}, True, 1.5])
def test_options_that_are_no_list_are_named(tmp_path: Path, candidates: object) -> None:
    with pytest.raises(FewerError, match="question 1: candidates is no list"):
        read_questions(write(tmp_path / "q.json", candidates=candidates))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question": 3}, "question 1 needs"),
        ({"img_path": [3]}, "question 1 needs"),
        ({"img_path": []}, "question 1 needs"),
        ({"correct_ans": "F"}, "question 1"),
        ({"correct_ans": {"x": 1}}, "question 1"),
        ({"candidates": []}, "question 1"),
    ],
)
def test_other_entries_are_named(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(FewerError, match=words):
        read_questions(write(tmp_path / "q.json", **changes))
