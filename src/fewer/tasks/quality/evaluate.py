"""Score a run, or a file of answers, on questions, descriptions or opinion scores; every score keeps its prompt."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.progress import Progress
from fewer.core.reading import read_json
from fewer.core.staging import write_together
from fewer.reports.page import Page, Section, Table, Tile
from fewer.tasks.folders import check_out, make_folder
from fewer.tasks.quality.assessment import PROMPT, read_logits, two_words
from fewer.tasks.quality.correlation import correlations
from fewer.tasks.quality.perception import Perception, score_answers
from fewer.tasks.quality.questions import prompt, read_questions
from fewer.tasks.quality.settings import EvaluateSettings

__all__ = ["QualityScores", "evaluate"]

FILES = ("evaluation.json", "evaluation.csv", "evaluation.html")


@dataclass(frozen=True)
class QualityScores:
    """Scores of one evaluation.

    Attributes
    ----------
    what
        ``questions`` or ``opinions``.
    perception
        Accuracies; None for opinions.
    numbers
        SRCC and PLCC; empty for questions.
    note
        Where they come from, with the prompt.
    """

    what: str
    perception: Perception | None
    numbers: dict[str, float]
    note: str

    def lines(self) -> list[str]:
        """All numbers."""
        told = self.perception.lines() if self.perception else []
        return told + [f"{name} {value:.3f}" for name, value in self.numbers.items()] + [self.note]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        asked = self.perception.to_dict() if self.perception else None
        return {"what": self.what, "questions": asked, "numbers": self.numbers, "note": self.note}

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
        main = self.perception.accuracy if self.perception else self.numbers["srcc"]
        name = "accuracy" if self.perception else "SRCC"
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
        A run of ``fewer tune``; or a JSON file with answers by place (a list) or by image (an object); or a file of
        logits as Q-Bench ships them, which holds its own opinion scores.
    data
        Questions (LLVisionQA), or a table ``file,score`` of opinions.

    Raises
    ------
    FewerError
        When they do not fit each other.
    """
    settings = settings or EvaluateSettings()
    check_out(out, FILES, overwrite)
    data = Path(data)
    result = (
        _opinions(target, data, settings, device)
        if data.suffix == ".csv"
        else _questions(target, data, settings, device)
    )
    if out is not None:
        result.save(out)
    return result


def _questions(target: str | Path, data: Path, settings: EvaluateSettings, device: str) -> QualityScores:
    questions = read_questions(data)
    questions = questions[: settings.limit] if settings.limit else questions
    ask = lambda q: prompt(q, letters=settings.way == "letters")  # noqa: E731
    if Path(target).is_dir():
        from fewer.tasks.quality.asking import choose, letters
        from fewer.tasks.quality.tuning import load_tuned

        tuned = load_tuned(target, device)
        pictures = tuned.pictures(settings.images or data.parent)
        found: Any = (
            choose(tuned, pictures, questions) if settings.way == "likelihood" else letters(tuned, pictures, questions)
        )
        scored = score_answers(questions, found, prompt=ask)
    else:
        given = read_json(target, 2**28)
        if not isinstance(given, (list, dict)):
            raise FewerError(f"{target} holds no answers; give a list in the order of the questions, or one by image")
        texts = [str(given.get(q.image, "")) for q in questions] if isinstance(given, dict) else [str(a) for a in given]
        scored = score_answers(questions, texts[: len(questions)], prompt=lambda q: prompt(q))
    return QualityScores("questions", scored, {}, f"prompt of the first question: {scored.prompts[0]!r}")


def _opinions(target: str | Path, data: Path, settings: EvaluateSettings, device: str) -> QualityScores:
    from fewer.study.new import read_scores

    opinions = read_scores(data)
    names = list(opinions)[: settings.limit or None]
    if Path(target).is_dir():
        from fewer.tasks.quality.asking import LEVEL_QUESTION, level_scores
        from fewer.tasks.quality.tuning import load_tuned

        tuned = load_tuned(target, device)
        scores = level_scores(tuned, tuned.pictures(settings.images or data.parent), names)
        note = f"five levels (Q-Align) after {LEVEL_QUESTION!r}, without a fit"
    else:
        logits = read_logits(target)
        place = {name: i for i, name in enumerate(logits.files)}
        names = [name for name in names if name in place]
        if len(names) < 2:
            raise FewerError(f"{target} and {data} have no images in common; names must be the same")
        of = [place[name] for name in names]
        scores = two_words(logits.good[of], logits.poor[of], settings.temperature)
        note = f"softmax of good and poor at temperature {settings.temperature:g} after {PROMPT!r}, without a fit"
    return QualityScores("opinions", None, correlations(scores, np.array([opinions[name] for name in names])), note)
