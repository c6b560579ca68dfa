"""Score a run, or a file of answers, on questions, descriptions or opinion scores; every score keeps its prompt."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.progress import Progress
from fewer.core.reading import read_json
from fewer.core.staging import write_together
from fewer.reports.page import Page, Section, Table, Tile
from fewer.study.tables import is_table
from fewer.tasks.folders import check_out, make_folder
from fewer.tasks.quality.convert.compare import holds_pairs
from fewer.tasks.quality.description import PROMPT as DESCRIBE
from fewer.tasks.quality.description import (
    Judge,
    WriterJudge,
    holds_descriptions,
    judge_descriptions,
    read_descriptions,
)
from fewer.tasks.quality.opinions import against_opinions, against_pairs
from fewer.tasks.quality.perception import Perception, score_answers
from fewer.tasks.quality.questions import Question, prompt, read_questions
from fewer.tasks.quality.settings import EvaluateSettings
from fewer.tasks.quality.words import PlainWords

if TYPE_CHECKING:
    from fewer.tasks.quality.tuning import Tuned

__all__ = ["QualityScores", "evaluate"]

FILES = ("evaluation.json", "evaluation.csv", "evaluation.html")


@dataclass(frozen=True, repr=False)
class QualityScores(Told):
    """Scores of one evaluation.

    Attributes
    ----------
    what
        ``questions``, ``descriptions``, ``opinions`` or ``pairs``.
    perception
        Accuracies; None where no questions were asked.
    numbers
        SRCC and PLCC, or the marks of descriptions, of which the first counts most; empty for questions.
    note
        Where they come from, with the prompt.
    details
        By image, where there are such: texts, marks, and the judge's own words.
    """

    what: str
    perception: Perception | None
    numbers: dict[str, float]
    note: str
    details: tuple[dict[str, Any], ...] = ()

    def lines(self) -> list[str]:
        """All numbers."""
        told = self.perception.lines() if self.perception else []
        return told + [f"{name} {value:.3f}" for name, value in self.numbers.items()] + [self.note]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        asked = self.perception.to_dict() if self.perception else None
        told = {"what": self.what, "questions": asked, "numbers": self.numbers, "note": self.note}
        return told | ({"details": list(self.details)} if self.details else {})

    def rows(self) -> list[list[str]]:
        """A table."""
        if self.perception is None:
            return [[name, f"{value:.4f}"] for name, value in self.numbers.items()]
        return [
            [name, str(row["questions"]), *("" if row[k] is None else f"{row[k]:.3f}" for k in _COLUMNS[2:])]
            for name, row in self.perception.rows.items()
        ]

    def head(self) -> list[str]:
        """Its heading."""
        return ["score", "value"] if self.perception is None else list(_COLUMNS)

    def to_page(self) -> Page:
        """A page."""
        table = Table(head=self.head(), rows=self.rows())
        name, main = ("accuracy", self.perception.accuracy) if self.perception else next(iter(self.numbers.items()))
        name = name.upper() if name == "srcc" else name
        text = f"{main:.1%}" if self.perception else f"{main:.3f}"
        section = Section(name="scores", title="Scores", words=[self.note], tables=[table])
        tiles = [Tile(name=name, value=text)]
        return Page(title="quality", badge="evaluated", sentence=f"{name} {text}.", tiles=tiles, sections=[section])

    def save(self, out: str | Path) -> None:
        """Write JSON, CSV and page into a folder."""
        folder = make_folder(out)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.head(), *self.rows()])
        texts = (json.dumps(self.to_dict(), indent=1) + "\n", text.getvalue(), self.to_page().to_html())
        write_together(folder, dict(zip(FILES, texts, strict=True)))


_COLUMNS = ("part", "questions", "accuracy", "substring", "chance", "majority")


def evaluate(
    target: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    settings: EvaluateSettings | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    command: str = "",
) -> QualityScores:
    """Score a model's answers.

    Parameters
    ----------
    target
        A run of ``fewer tune``; or a JSON file with answers by place (a list) or by image (an object, such as that of
        ``fewer predict``); or a file of logits of words as Q-Bench or Q-Align ship them.
    data
        Questions (LLVisionQA), golden descriptions (LLDescribe), a table ``file,score`` of opinions, or the
        ``pairs.csv`` of a study.

    Raises
    ------
    FewerError
        When they do not fit each other.
    """
    settings = settings or EvaluateSettings()
    check_out(out, FILES, overwrite)
    data = Path(data)
    if is_table(data):
        way = _pairs if holds_pairs(data) else _opinions
    else:
        way = _descriptions if holds_descriptions(data) else _questions
    result = way(target, data, settings, device)
    if out is not None:
        result.save(out)
    return result


def _questions(target: str | Path, data: Path, settings: EvaluateSettings, device: str) -> QualityScores:
    questions = read_questions(data)
    questions = questions[: settings.limit] if settings.limit else questions
    ask = lambda q: prompt(q, letters=settings.way == "letters")  # noqa: E731
    if Path(target).is_dir():
        from fewer.tasks.quality.asking import choose, letters
        from fewer.tasks.quality.compressing import open_tuned

        tuned = open_tuned(target, device)
        pictures = tuned.pictures(settings.images or data.parent)
        pictures.need((name for q in questions for name in q.images), data)
        found: Any = (
            choose(tuned, pictures, questions) if settings.way == "likelihood" else letters(tuned, pictures, questions)
        )
        scored = score_answers(questions, found, prompt=ask)
    else:
        texts = _answers(target, [q.image for q in questions])
        scored, tuned = score_answers(questions, texts, prompt=lambda q: prompt(q)), None
    note = f"prompt of the first question: {scored.prompts[0]!r}"
    return QualityScores("questions", scored, {}, note + _unknown(tuned, questions))


def _unknown(tuned: Tuned | None, questions: Sequence[Question]) -> str:
    """How many questions have options that a model from nothing has no words for; it chooses among them blindly."""
    if tuned is None or not isinstance(tuned.words, PlainWords):
        return ""
    words = tuned.words
    blind = sum(any(words.unknown(option) for option in question.options) for question in questions)
    return f"; {blind} questions have options with words that the model never saw" if blind else ""


def _answers(target: str | Path, images: list[str]) -> list[str]:
    """Texts of a file for images, in their order; an image without one has none."""
    given = read_json(target, 2**28)
    if isinstance(given, dict) and isinstance(given.get("images"), dict):  # of fewer predict
        given = {name: row.get("text", "") if isinstance(row, dict) else row for name, row in given["images"].items()}
    if isinstance(given, list) and given and all(isinstance(row, dict) for row in given):
        texts = [next((row[key] for key in _TEXTS if key in row), None) for row in given]
        if None in texts:
            raise FewerError(f"{target}: row {texts.index(None)} has no answer (keys {', '.join(_TEXTS)})")
        named = [next((row[key] for key in _IMAGES if key in row), None) for row in given]
        matched = _by_name(named, texts, images)
        given = texts if matched is None else matched  # else in the order of the questions
    if not isinstance(given, (list, dict)):
        raise FewerError(f"{target} holds no answers; give a list in the order of the questions, or one by image")
    if isinstance(given, dict):
        if not any(name in given for name in images):
            raise FewerError(f"{target} has no answer about {images[0]} or any other image of the data; names differ")
        return [str(given.get(name, "")) for name in images]
    if len(given) < len(images):  # which of them are missing cannot be told
        raise FewerError(f"{target} holds {len(given)} answers and the data ask for {len(images)}")
    return [str(text) for text in given][: len(images)]


def _by_name(named: list[Any], texts: list[Any], images: list[str]) -> dict[str, Any] | list[Any] | None:
    """Answers by image; of several about one image those in their order. None where names do not tell."""
    if not all(isinstance(name, str) for name in named):
        return None
    if len(set(images)) == len(images) and len(set(named)) == len(named):
        return dict(zip(named, texts, strict=True))
    about: dict[str, list[Any]] = {}
    for name, text in zip(named, texts, strict=True):
        about.setdefault(name, []).append(text)
    if any(len(about.get(name, ())) < count for name, count in Counter(images).items()):
        return None
    return [about[name].pop(0) for name in images]


_IMAGES = ("img_path", "image", "img_name", "image_path")
_TEXTS = ("answer", "response", "prediction", "pred", "output", "text")


def _descriptions(target: str | Path, data: Path, settings: EvaluateSettings, device: str) -> QualityScores:
    golden = read_descriptions(data)
    golden = dict(list(golden.items())[: settings.limit or None])
    if Path(target).is_dir():
        from fewer.tasks.quality.asking import describe
        from fewer.tasks.quality.compressing import open_tuned

        tuned = open_tuned(target, device)
        pictures = tuned.pictures(settings.images or data.parent)
        pictures.need(golden, data)
        texts = describe(tuned, pictures, list(golden), DESCRIBE)
    else:
        texts = dict(zip(golden, _answers(target, list(golden)), strict=False))
    done = judge_descriptions(texts, golden, _judge(settings))
    numbers = {"sum of 6": done.total, **done.marks}
    return QualityScores("descriptions", None, numbers, f"{done.lines()[0]}; prompt {DESCRIBE!r}", done.rows)


def _judge(settings: EvaluateSettings) -> Judge | None:
    if not settings.judge:
        return None
    if not settings.judge_model:
        raise FewerError(f"which model of {settings.judge} shall judge? give --judge-model NAME")
    from fewer.tasks.quality.convert.endpoint import EndpointWriter

    writer = EndpointWriter(settings.judge, settings.judge_model, os.environ.get("OPENAI_API_KEY", ""))
    return WriterJudge(writer.ask, settings.judge_model)


def _opinions(target: str | Path, data: Path, settings: EvaluateSettings, device: str) -> QualityScores:
    numbers, note = against_opinions(target, data, settings, device)
    return QualityScores("opinions", None, numbers, note)


def _pairs(target: str | Path, data: Path, settings: EvaluateSettings, device: str) -> QualityScores:
    numbers, note = against_pairs(target, data, settings, device)
    return QualityScores("pairs", None, numbers, note)
