"""Logits of rating words by image, as Q-Bench, Q-Boost and Q-Align leave them, and the scores they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import read_json
from fewer.tasks.quality.assessment import TEMPERATURE, five_levels, three_words, two_words

__all__ = ["WORDS", "read_word_logits", "score_words", "words_in"]

WORDS: dict[str, tuple[str, ...]] = {
    "five": ("excellent", "good", "fair", "poor", "bad"),
    "three": ("good", "average", "poor"),
    "two": ("good", "poor"),
}
"""By the way of scoring, the one with the most words first."""
_NAMES = ("img_path", "image", "img_name", "filename")


def read_word_logits(path: str | Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Read logits of rating words by image, whichever words there are.

    Each row has a name (``img_path``, ``image``, ``img_name`` or ``filename``), and either ``logit_good``,
    ``logit_poor`` and so on, as Q-Bench writes, or an object ``logits`` by word, as Q-Align writes.

    Returns
    -------
    tuple
        Names of the images, and [N] logits by word.

    Raises
    ------
    FewerError
        Naming the first row that lacks a word which the first row has.
    """
    values = read_json(path, 2**28)
    if isinstance(values, dict):
        values = list(values.values())
    if not isinstance(values, list) or not values:
        raise FewerError(f"{path} holds no list of logits")
    known = {word for words in WORDS.values() for word in words}
    names: list[str] = []
    rows: list[dict[str, float]] = []
    for place, row in enumerate(values):
        name = next((row[key] for key in _NAMES if key in row), None) if isinstance(row, Mapping) else None
        if not isinstance(name, str):
            raise FewerError(f"{path}: row {place} has no name of an image (img_path)")
        given = {word: value for word, value in _given(row).items() if word in known}
        lacking = [word for word in (rows[0] if rows else WORDS["two"]) if word not in given]
        if lacking:
            raise FewerError(f"{path}: row {place} ({name[:60]}) has no logit of {lacking[0]} (logit_{lacking[0]})")
        wrong = [word for word, value in given.items() if not _is_number(value)]
        if wrong:
            raise FewerError(f"{path}: row {place} ({name[:60]}): the logit of {wrong[0]} is no number")
        names.append(name)
        rows.append({word: float(value) for word, value in given.items()})
    return tuple(names), {word: np.array([row[word] for row in rows]) for word in rows[0]}


def _given(row: Mapping[str, Any]) -> dict[str, Any]:
    inside = row.get("logits")
    if isinstance(inside, Mapping):
        return {str(word).strip().lower(): value for word, value in inside.items()}
    return {key.removeprefix("logit_"): value for key, value in row.items() if key.startswith("logit_")}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def words_in(logits: Mapping[str, np.ndarray], way: str = "auto") -> str:
    """The way of scoring: ``five``, ``three`` or ``two``; ``auto`` is the one with the most words that are there.

    Raises
    ------
    FewerError
        When a word of the wanted way is missing.

    Examples
    --------
    >>> words_in({"good": np.zeros(1), "poor": np.zeros(1)})
    'two'
    """
    if way == "auto":
        return next(name for name, words in WORDS.items() if all(word in logits for word in words))
    lacking = [word for word in WORDS[way] if word not in logits]
    if lacking:
        raise FewerError(f"scores of {way} words need the logit of {lacking[0]}; there are {', '.join(logits)}")
    return way


def score_words(logits: Mapping[str, np.ndarray], way: str, temperature: float = TEMPERATURE) -> np.ndarray:
    """Scores [N]: of two words (Q-Bench), of three (Q-Boost), or of five levels (Q-Align, without a temperature).

    Examples
    --------
    >>> score_words({"good": np.zeros(1), "poor": np.zeros(1)}, "two").tolist()
    [0.5]
    """
    columns = [logits[word] for word in WORDS[way]]
    if way == "five":
        return five_levels(np.stack(columns, 1))
    if way == "three":
        return three_words(columns[0], columns[1], columns[2], temperature)
    return two_words(columns[0], columns[1], temperature)
