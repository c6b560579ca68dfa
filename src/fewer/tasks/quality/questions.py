"""Q-Bench A1: questions with options about how an image looks, and the readers of their public files (LLVisionQA)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.core.reading import parse_json, read_json, read_text

__all__ = ["CONCERNS", "KINDS", "LETTERS", "Question", "prompt", "read_questions", "write_questions"]

LETTERS = "ABCDEFGH"
KINDS = ("yes-or-no", "what", "how")
"""By the number that the public table calls ``question_type``."""
CONCERNS = ("distortion", "other", "in-context distortion", "in-context other")
"""By the number that the public table calls ``question_concern``: the four quadrants of Q-Bench.

The coding of both numbers was inferred from published examples.
"""


@dataclass(frozen=True)
class Question:
    """One question about one image.

    Attributes
    ----------
    image
        File, relative to the folder of images.
    text
        The question.
    options
        What can be answered.
    answer
        Place of the right option; None where it is hidden, as in the public test half.
    kind, concern
        One of :data:`KINDS` and of :data:`CONCERNS`; may be empty.
    id
        Of the file; empty otherwise.
    others
        Further images of a question about several, such as the pairs of Q-Bench2.
    """

    image: str
    text: str
    options: tuple[str, ...]
    answer: int | None = None
    kind: str = ""
    concern: str = ""
    id: str = ""
    others: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """All images in their order."""
        return (self.image, *self.others)

    def __post_init__(self) -> None:
        if not 2 <= len(self.options) <= len(LETTERS):
            raise FewerError(
                f"the question {self.text[:60]!r} has {len(self.options)} options; 2 to {len(LETTERS)} are possible"
            )
        if self.answer is not None and not 0 <= self.answer < len(self.options):
            raise FewerError(f"the answer of {self.text[:60]!r} is none of its {len(self.options)} options")


def prompt(question: Question, letters: bool = True) -> str:
    """What a model is asked, without the image; the very text is stored with every score.

    Parameters
    ----------
    question
        To ask.
    letters
        With options and the request for a letter, as Q-Bench does; otherwise the question alone, for scores by the
        likelihood of the options' words.

    Examples
    --------
    >>> print(prompt(Question("a.jpg", "Is it blurry?", ("Yes", "No"))))
    Is it blurry?
    Answer with the option's letter from the given choices directly.
    A. Yes
    B. No
    """
    if not letters:
        return question.text
    rows = [f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False)]
    return "\n".join([question.text, "Answer with the option's letter from the given choices directly.", *rows])


def read_questions(path: str | Path) -> list[Question]:
    """Read LLVisionQA: the old JSON, rows of the newer table as JSON or JSON Lines, or what we wrote.

    Old: ``img_path, question, candidates, correct_ans`` and perhaps ``type, concern``. New: ``image, question,
    option0..option3`` (``N/A`` fills up), ``question_type, question_concern, correct_choice``. Of other tools,
    ``options`` or ``choices`` (a list, or an object by letter), ``answer`` and ``image_path`` are known too; of pairs
    (Q-Bench2) ``image1`` and ``image2``, or a list of names.

    Raises
    ------
    FewerError
        Naming the first entry that cannot be read, such as one whose letter is outside of its options.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        lines = read_text(path, 2**28, "list of questions").removeprefix("\ufeff").split("\n")
        values = [parse_json(line, f"{path}: line {place + 1}") for place, line in enumerate(lines) if line.strip()]
    else:
        values = read_json(path, 2**28)
    if isinstance(values, dict):
        lists = [value for value in values.values() if isinstance(value, list)]
        values = lists[0] if len(lists) == 1 else list(values.values())
    if not isinstance(values, list) or not values:
        raise FewerError(f"{path} holds no list of questions")
    return [_question(value, f"{path}: question {place}") for place, value in enumerate(values)]


def _question(value: Any, where: str) -> Question:
    if not isinstance(value, Mapping):
        raise FewerError(f"{where} is no object")
    images = _images(value)
    text = value.get("question")
    if not images or not all(isinstance(image, str) for image in images) or not isinstance(text, str):
        raise FewerError(f"{where} needs the name of an image and a question")
    offered = _first(value, "candidates", "options", "choices")
    if isinstance(offered, Mapping) and len(offered) > 1 and all(_is_letter(key) for key in offered):
        offered = [offered[letter] for letter in sorted(offered, key=str.upper)]
    if any(key in value for key in ("candidates", "options", "choices")):
        if not isinstance(offered, list):
            raise FewerError(f"{where}: candidates is no list of options")
        options = tuple(str(option) for option in offered)
    else:
        options = tuple(str(value[f"option{i}"]) for i in range(8) if str(value.get(f"option{i}", "N/A")) != "N/A")
    kind = _coded(value.get("question_type", value.get("type", value.get("kind", ""))), KINDS)
    concern = _coded(value.get("question_concern", value.get("concern", "")), CONCERNS)
    try:
        asked = Question(images[0], text, options, None, kind, concern, str(value.get("id", "")), tuple(images[1:]))
        return replace(asked, answer=_answer(_first(value, "correct_choice", "correct_ans", "answer"), options))
    except FewerError as error:
        raise FewerError(f"{where}: {error}") from None


def _is_letter(text: str) -> bool:
    return len(text) == 1 and text.upper() in LETTERS


def _images(value: Mapping[str, Any]) -> list[Any]:
    """Names of the images: one, a list, or ``image1`` and ``image2`` as in the pairs of Q-Bench2."""
    found = _first(value, "img_path", "image", "img_name", "image_path", "image1", "img_path1")
    more = [value[key] for key in ("image2", "img_path2") if key in value]
    names = [*found, *more] if isinstance(found, list) else [found, *more]
    # rows of the table keep bytes and name of the image
    return [name.get("path") if isinstance(name, Mapping) else name for name in names]


def _first(value: Mapping[str, Any], *keys: str) -> Any:
    """What stands under the first of these keys that is there."""
    return next((value[key] for key in keys if key in value), None)


def _coded(value: Any, names: tuple[str, ...]) -> str:
    text = str(value).strip().lower()
    if text.isdecimal() and int(text) < len(names):
        return names[int(text)]
    return text if text in names else ""


def _answer(value: Any, options: tuple[str, ...]) -> int | None:
    """Place of an answer that is a letter, a place or the text of an option; None for a hidden one."""
    if value is None or str(value).strip() in ("", "N/A", "?"):
        return None
    text = str(value).strip()
    for place, option in enumerate(options):
        if option.strip().lower() == text.lower():
            return place
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(options):
        return value
    letter = text.lstrip("([").rstrip(".)]:").upper()
    if len(letter) == 1 and letter in LETTERS[: len(options)]:
        return LETTERS.index(letter)
    raise FewerError(f"the answer {text[:40]!r} is outside of the options {', '.join(options)[:120]}")


def write_questions(path: str | Path, questions: Iterable[Question]) -> Path:
    """Write questions in the old public form, with kind and concern added; :func:`read_questions` reads it back."""
    rows = [
        {
            "id": q.id,
            "img_path": list(q.images) if q.others else q.image,
            "question": q.text,
            "candidates": list(q.options),
            "correct_ans": None if q.answer is None else q.options[q.answer],
            "type": q.kind,
            "concern": q.concern,
        }
        for q in questions
    ]
    return atomic_write_text(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
