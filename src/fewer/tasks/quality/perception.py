"""Q-Bench A1: accuracy of answers, by kind of question and quadrant, read in three ways that are reported apart.

The published scorer of Q-Instruct counts a hit where the right letter is anywhere in the output, so that the word
"Average" contains the answer A. We parse strictly and report both; the third way takes the option whose words are the
most likely ones, since a small model does not bind letters to options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.tasks.quality.questions import LETTERS, Question

__all__ = ["Perception", "most_likely", "score_answers", "strict_choice", "substring_hit", "unanswered"]

_NAMED = r"(?:answer|option|choice)"
_LETTER = re.compile(
    rf"^(?:(?:the|my)\s+)?(?:(?:correct|right|best|final)\s+)?(?:{_NAMED}\s*(?:is\b)?\s*:?\s*){{0,2}}(?:is\b)?\s*"
    r"[(\[]?([A-Ha-h])[)\]]?(?:[.):,\]]|\s*$|[ \t]*\n|\s+is\s+(?:correct|right|the\s+(?:correct|right|answer))\b)",
    re.I,
)
_MARKS = re.compile(r"\*+|[`\"]|</?s>|<\|[a-z_]+\|>")
"""What chat models put around an answer and what ends a turn; no part of what they say."""


def strict_choice(text: str, options: Sequence[str]) -> int | None:
    """The option that an answer means: one letter alone or before its text, or exactly an option's words.

    Examples
    --------
    >>> options = ("Yes", "No")
    >>> [strict_choice(text, options) for text in ("B", "(A).", "Answer: B", "no.", "Average", "A or B", "D")]
    [1, 0, 1, 1, None, None, None]
    """
    text = _MARKS.sub("", text).strip()
    plain = [_MARKS.sub("", option).strip().lower().rstrip(".") for option in options]
    if text.lower().rstrip(".") in plain:
        return plain.index(text.lower().rstrip("."))
    found = _LETTER.match(text)
    if found is None:
        return None
    choice = LETTERS.index(found[1].upper())
    rest = text[found.end() :].strip().lower().rstrip(".")
    # a second letter, or the words of another option, contradict the first one
    others = re.findall(r"(?<![\w'])\(?([B-H])(?:[.)]|\b)(?!')", text[found.end() :])
    named = [place for place, option in enumerate(plain) if rest and rest == option]
    if choice >= len(options) or (named and named[0] != choice) or any(letter != LETTERS[choice] for letter in others):
        return None
    return choice


def substring_hit(text: str, answer: int) -> bool:
    """The published rule: the right letter is a substring of the output.

    Examples
    --------
    >>> substring_hit("Average", 0), substring_hit("B", 0)
    (True, False)
    """
    return LETTERS[answer] in text


def most_likely(sums: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """The option whose words have the largest log-likelihood; with lengths, per token.

    Examples
    --------
    >>> most_likely([-4.0, -6.0]), most_likely([-4.0, -6.0], [1, 3])
    (0, 1)
    """
    values = np.asarray(sums, float)
    if lengths is not None:
        values = values / np.maximum(np.asarray(lengths, float), 1)
    return int(values.argmax())


def unanswered(questions: Sequence[Question]) -> list[Question]:
    """Questions whose answer is hidden; they cannot be scored here."""
    return [question for question in questions if question.answer is None]


@dataclass(frozen=True, repr=False)
class Perception(Told):
    """Accuracies of one set of answers.

    Attributes
    ----------
    rows
        By name of a part (``all``, a kind, a concern): questions, share that is right, share by the published
        substring rule (None for choices by likelihood), share by chance, and share of always the most frequent answer.
    unread
        Answers that name no option; they count as wrong.
    hidden
        Questions without a public answer, which were left out.
    way
        ``letters`` or ``likelihood``.
    prompts
        The very text of the first question's prompt, as an example of all.
    """

    rows: dict[str, dict[str, float | int | None]]
    unread: int
    hidden: int
    way: str
    prompts: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """Share of all questions that is right."""
        return float(self.rows["all"]["accuracy"] or 0.0)

    def lines(self) -> list[str]:
        """One line per part."""
        told = [
            f"read by {self.way}; {self.unread} answers name no option; {self.hidden} questions have no public answer"
        ]
        for name, row in self.rows.items():
            loose = row["substring"]
            extra = "" if loose is None else f", {loose:.1%} by the substring rule"
            base = f"chance {row['chance']:.1%}, majority {row['majority']:.1%}"
            told.append(f"{name}: {row['accuracy']:.1%} of {row['questions']}{extra} ({base})")
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "way": self.way,
            "unread": self.unread,
            "hidden": self.hidden,
            "rows": self.rows,
            "prompts": list(self.prompts),
        }


def score_answers(
    questions: Sequence[Question],
    answers: Sequence[str] | Sequence[int],
    *,
    prompt: Callable[[Question], str] | None = None,
) -> Perception:
    """Accuracy by kind and quadrant.

    Parameters
    ----------
    questions
        With their right answers; hidden ones are left out and counted.
    answers
        What the model wrote for each, or the places of the options that it chose by likelihood.
    prompt
        What was asked; the first one is kept in the result.

    Examples
    --------
    >>> asked = [Question("a", "Is it sharp?", ("Yes", "No"), 0), Question("b", "How?", ("x", "y"), 1)]
    >>> score_answers(asked, ["A", "Average"]).rows["all"]["accuracy"]
    0.5
    """
    if len(questions) != len(answers):
        raise FewerError(f"there are {len(questions)} questions and {len(answers)} answers; give one for each")
    known = [(q, a) for q, a in zip(questions, answers, strict=True) if q.answer is not None]
    if not known:
        raise FewerError("no question has a public answer, so nothing can be scored")
    texts = isinstance(known[0][1], str)
    choices = [strict_choice(str(a), q.options) if texts else int(a) for q, a in known]
    right = np.array([choice == q.answer for choice, (q, _) in zip(choices, known, strict=True)])
    loose = np.array([texts and substring_hit(str(a), q.answer or 0) for q, a in known])
    chance = np.array([1 / len(q.options) for q, _ in known])
    words = np.array([q.options[q.answer or 0].lower() for q, _ in known])
    parts = {"all": np.ones(len(known), bool)}
    for key in ("kind", "concern"):
        names = np.array([getattr(q, key) for q, _ in known])
        parts |= {str(name): names == name for name in np.unique(names) if name}
    rows: dict[str, dict[str, float | int | None]] = {}
    for name, of in parts.items():
        rows[name] = {
            "questions": int(of.sum()),
            "accuracy": float(right[of].mean()),
            "substring": float(loose[of].mean()) if texts else None,
            "chance": float(chance[of].mean()),
            "majority": float(np.unique(words[of], return_counts=True)[1].max() / of.sum()),
        }
    shown = (prompt(known[0][0]),) if prompt is not None else ()
    way = "letters" if texts else "likelihood"
    return Perception(rows, sum(c is None for c in choices), len(questions) - len(known), way, shown)
