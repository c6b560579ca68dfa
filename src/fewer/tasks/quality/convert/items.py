"""From a writer's JSON text to checked items; what fails a check is left out, with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.reading import parse_json
from fewer.study.pathway import Pathway
from fewer.tasks.quality.convert.facts import entails, says

__all__ = ["Item", "check_items", "parse_list"]


@dataclass(frozen=True)
class Item:
    """A question that passed all checks.

    Attributes
    ----------
    image
        What it is about.
    kind
        ``what``, ``how`` or ``yes-or-no``.
    question, answer
        Texts.
    wrong
        Other options.
    unmentioned
        The answer is No because the text says nothing of it, which need not be true.
    """

    image: str
    kind: str
    question: str
    answer: str
    wrong: tuple[str, ...]
    unmentioned: bool = False


def parse_list(text: str) -> list[Any] | None:
    """The JSON list in an answer of a language model, which may have words around it; None without one.

    Examples
    --------
    >>> parse_list('Sure! ```json [{"a": 1}]```'), parse_list("I cannot.")
    ([{'a': 1}], None)
    """
    text = _THOUGHT.sub("", text)
    start, end = text.find("["), text.rfind("]")
    if start < 0 or end < start:
        return None
    try:
        found = parse_json(text[start : end + 1], "the answer")
    except FewerError:
        return None
    return found if isinstance(found, list) else None


_THOUGHT = re.compile(r"(?s)<think(?:ing)?>.*?</think(?:ing)?>")  # in which brackets may stand, too


def check_items(kind: str, rows: list[Any], pathway: Pathway) -> tuple[list[Item], list[str]]:
    """Items of a list that hold what their pathway says, and a reason for each of the others."""
    items, reasons = [], []
    seen: set[str] = set()
    for row in rows:
        made = _one(kind, row, pathway)
        if isinstance(made, str):
            reasons.append(made)
        elif made.question.lower() in seen:
            reasons.append("asked twice")
        else:
            seen.add(made.question.lower())
            items.append(made)
    return items, reasons


def _one(kind: str, row: Any, pathway: Pathway) -> Item | str:
    if not isinstance(row, Mapping):
        return "no object"
    question, answer = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str) or not question.strip() or not answer.strip():
        return "no question or answer"
    question, answer = " ".join(question.split()), " ".join(answer.split()).rstrip(".")
    if not question.endswith("?"):
        return "no question mark"
    return _yes_no(question, answer, pathway) if kind == "yes-no" else _what_how(question, answer, row, pathway)


def _yes_no(question: str, answer: str, pathway: Pathway) -> Item | str:
    if answer.lower() not in ("yes", "no"):
        return "an answer that is neither yes nor no"
    told = says(pathway.text, question)
    if told is None and answer.lower() == "yes":
        return "a yes that the text does not say"
    if told is not None and told != (answer.lower() == "yes"):
        return "an answer that contradicts the text"
    other = "No" if answer.lower() == "yes" else "Yes"
    return Item(pathway.image, "yes-or-no", question, answer.capitalize(), (other,), told is None)


def _what_how(question: str, answer: str, row: Mapping[str, Any], pathway: Pathway) -> Item | str:
    opener = re.match(r"(?i)(what|why|how)\b", question)
    if not opener:
        return "a question that begins with neither what, why nor how"
    if len(answer.split()) > 8:
        return "an answer that is too long"
    if not entails(question, answer, pathway.text):
        return "an answer that is not in the text"
    given = row.get("false candidates", row.get("false_candidates", []))
    wrong: list[str] = []
    for option in given if isinstance(given, list) else []:
        text = " ".join(str(option).split()).rstrip(".")
        if not text or text.lower() == answer.lower() or text.lower() in (w.lower() for w in wrong):
            continue
        if entails(question, text, pathway.text):
            continue  # a wrong option that is right
        wrong.append(text)
    if not wrong:
        return "no wrong option is left"
    kind = "how" if opener[1].lower() == "how" else "what"
    return Item(pathway.image, kind, question, answer, tuple(wrong[:3]))
