"""Q-Bench A2: how well a description of an image's quality agrees with the one of an expert.

The paper lets GPT give 0, 1 or 2 for completeness, preciseness and relevance, five times. Here the judge is any
function; the local one is made of rules, so that it gives the same marks everywhere. Marks of different judges are
never comparable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.reading import read_json
from fewer.study.vocabulary import level_of, sentences, statements

__all__ = [
    "AXES",
    "PROMPT",
    "Described",
    "Judge",
    "LocalJudge",
    "WriterJudge",
    "holds_descriptions",
    "judge_descriptions",
    "read_descriptions",
]

PROMPT = "Describe and evaluate the quality of the image."
"""What every model is asked."""
AXES = ("completeness", "preciseness", "relevance")


class Judge(Protocol):
    """Gives marks to a description."""

    name: str

    def marks(self, answer: str, golden: str) -> tuple[tuple[float, float, float], str]:
        """Completeness, preciseness and relevance, 0 to 2 each, and the raw words of the judge."""
        ...


class LocalJudge:
    """Marks from the vocabulary: the same for the same texts, without a language model.

    Completeness is the share of the golden statements (aspect and whether it is praised or blamed, and the overall
    level within one) that are there; preciseness is the share of common aspects without a contradiction; relevance the
    share of sentences that speak of low-level matters. A share becomes 2 from two thirds on, 1 from one third on.

    Examples
    --------
    >>> LocalJudge().marks("The cat is blurry. Overall the quality is poor.", "A blurry cat. The quality is poor.")[0]
    (2.0, 2.0, 2.0)
    >>> LocalJudge().marks("The cat is sharp.", "The cat is blurry.")[0][1]
    0.0
    """

    name = "local rules"

    def marks(self, answer: str, golden: str) -> tuple[tuple[float, float, float], str]:
        """See the class."""
        said, true = _facts(answer), _facts(golden)
        level, wanted = level_of(answer), level_of(golden)
        complete = [aspect in said and bool(said[aspect] & signs) for aspect, signs in true.items()]
        if wanted is not None:
            complete.append(level is not None and abs(level - wanted) <= 1)
        common = [aspect for aspect in said if aspect in true]
        precise = [bool(said[aspect] & true[aspect]) for aspect in common]
        if wanted is not None and level is not None:
            precise.append(abs(level - wanted) <= 1)
        parts = sentences(answer)
        relevant = [bool(statements(part)) or level_of(part) is not None for part in parts]
        shares = [float(np.mean(values)) if values else 0.0 for values in (complete, precise, relevant)]
        # a text without any low-level fact contradicts nothing, but it is not precise either
        marks = tuple(2.0 if share >= 2 / 3 else 1.0 if share >= 1 / 3 else 0.0 for share in shares)
        return (marks[0], marks[1], marks[2]), "shares " + ", ".join(f"{share:.2f}" for share in shares)


def _facts(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for said in statements(text):
        found.setdefault(said.aspect, set()).add(said.polarity)
    return found


class WriterJudge:
    """A language model as the judge; its raw words are kept.

    Parameters
    ----------
    ask
        Gives the model's answer to a prompt.
    name
        Of the model, for the record.
    rounds
        How often each axis is asked; the marks are averaged (five in the paper).

    Examples
    --------
    >>> WriterJudge(lambda prompt: "2", "echo", rounds=1).marks("a", "b")[0]
    (2.0, 2.0, 2.0)
    """

    def __init__(self, ask: Callable[[str], str], name: str, rounds: int = 5) -> None:
        self.ask, self.name, self.rounds = ask, name, rounds

    def marks(self, answer: str, golden: str) -> tuple[tuple[float, float, float], str]:
        """See the class.

        Raises
        ------
        FewerError
            When the model never gives a mark for an axis.
        """
        marks, raw = [], []
        for axis, about in zip(AXES, _ABOUT, strict=True):
            text = (
                f"{about} Give 0, 1 or 2 and nothing else.\n"
                f"Reference description: {golden}\nDescription to mark: {answer}\nMark:"
            )
            values = []
            for _ in range(self.rounds):
                told = self.ask(text)
                raw.append(f"{axis}: {told}")
                mark = _mark(told)
                values += [] if mark is None else [mark]
            if not values:
                raise FewerError(
                    f"the judge {self.name} gave no mark for {axis} in {self.rounds} rounds: {raw[-1][:100]}"
                )
            marks.append(float(np.mean(values)))
        return (marks[0], marks[1], marks[2]), "\n".join(raw)


def _mark(told: str) -> float | None:
    """The mark in what a judge says: at its beginning, or the only number; None where that is not clear.

    Examples
    --------
    >>> _mark("2."), _mark("Mark: 1"), _mark("1 out of 2"), _mark("0 or 2?"), _mark("10"), _mark("of 2 I give 1")
    (2.0, 1.0, 1.0, None, None, None)
    """
    told = re.sub(r"(?s)<think(?:ing)?>.*?</think(?:ing)?>", "", told).strip()
    first = re.match(r"(?i)(?:the )?(?:mark|score)?\W*([012])(?![\d/]|\.\d)(?!\W*or\b)", told)
    if first or (first := re.match(r"([012])\s*/\s*2\b", told)):
        return float(first[1])
    numbers = set(re.findall(r"\d+(?:\.\d+)?", told))
    return float(numbers.pop()) if len(numbers) == 1 and numbers <= {"0", "1", "2"} else None


_ABOUT = (
    "Mark how completely the description covers what the reference says about low-level visual quality: "
    "2 for all or nearly all, 1 for a part, 0 for nothing.",
    "Mark how precise the description is: 2 where nothing contradicts the reference, 1 where some of it does, "
    "0 where it says the opposite, such as clear for blurry or dark for bright.",
    "Mark how far the description stays with low-level visual quality and brightness, colour, sharpness and the like: "
    "2 throughout, 1 partly, 0 not at all.",
)


@dataclass(frozen=True, repr=False)
class Described(Told):
    """Mean marks of descriptions.

    Attributes
    ----------
    marks
        Mean of each of :data:`AXES`, 0 to 2.
    judge
        Who gave them.
    rows
        By image: answer, marks and the judge's raw words.
    """

    marks: dict[str, float]
    judge: str
    rows: tuple[dict[str, Any], ...]

    @property
    def total(self) -> float:
        """Sum of the three marks, 6 at most."""
        return sum(self.marks.values())

    def lines(self) -> list[str]:
        """One line."""
        parts = ", ".join(f"{name} {value:.2f}" for name, value in self.marks.items())
        return [f"descriptions: {parts}, sum {self.total:.2f} of 6 ({len(self.rows)} images, judge: {self.judge})"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"prompt": PROMPT, "judge": self.judge, "marks": self.marks, "sum": self.total, "rows": list(self.rows)}


def judge_descriptions(answers: Mapping[str, str], golden: Mapping[str, str], judge: Judge | None = None) -> Described:
    """Marks of descriptions, by image.

    Parameters
    ----------
    answers
        What the model wrote; an image without an answer gets no marks at all.
    golden
        What experts wrote.
    judge
        The local rules by default.
    """
    judge = judge or LocalJudge()
    if not golden:
        raise FewerError("there are no golden descriptions to compare with")
    rows = []
    for image, text in golden.items():
        marks, raw = judge.marks(answers[image], text) if answers.get(image) else ((0.0, 0.0, 0.0), "no answer")
        rows.append({"image": image, "answer": answers.get(image, ""), "marks": list(marks), "raw": raw})
    means = np.mean([row["marks"] for row in rows], 0)
    return Described(dict(zip(AXES, means.tolist(), strict=True)), judge.name, tuple(rows))


_IMAGES = ("img_path", "image", "img_name")
_GOLDEN = ("golden_desc", "golden", "description", "gt")


def holds_descriptions(path: str | Path) -> bool:
    """Whether a file of JSON holds golden descriptions, and not questions or something else.

    Examples
    --------
    >>> holds_descriptions("no-such-file.json")
    False
    """
    if Path(path).suffix != ".json" or not Path(path).is_file():
        return False
    values = read_json(path, 2**28)
    if isinstance(values, dict) and values and all(isinstance(text, str) for text in values.values()):
        return True
    values = list(values.values()) if isinstance(values, dict) else values
    first = values[0] if isinstance(values, list) and values else None
    return isinstance(first, dict) and "question" not in first and any(key in first for key in _GOLDEN)


def read_descriptions(path: str | Path) -> dict[str, str]:
    """Read golden descriptions (LLDescribe): a list of objects with an image and a text, or an object of texts.

    The keys ``img_path``, ``image`` or ``img_name``, and ``golden_desc``, ``golden``, ``description`` or ``gt`` are
    known; several texts of one image are joined.

    Raises
    ------
    FewerError
        When an entry has no such keys.
    """
    values = read_json(path, 2**28)
    if isinstance(values, dict) and all(isinstance(text, str) for text in values.values()):
        return dict(values)
    values = list(values.values()) if isinstance(values, dict) else values
    found: dict[str, str] = {}
    for place, row in enumerate(values if isinstance(values, list) else []):
        keys: Sequence[str] = list(row) if isinstance(row, dict) else []
        image = next((row[key] for key in _IMAGES if key in keys), None)
        text = next((row[key] for key in _GOLDEN if key in keys), None)
        if not isinstance(image, str) or not isinstance(text, str):
            raise FewerError(f"{path}: description {place} needs img_path and golden_desc")
        found[image] = f"{found[image]} {text}" if image in found else text
    if not found:
        raise FewerError(f"{path} holds no descriptions")
    return found
