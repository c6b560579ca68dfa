"""Conversations about images, in the JSON form of LLaVA-v1.5 that Q-Instruct, Q-Align and most tuning code read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.core.reading import parse_json, read_json, read_text
from fewer.study.vocabulary import LEVELS
from fewer.tasks.quality.foreign import as_llava

__all__ = [
    "MOST_IMAGES",
    "PLACEHOLDER",
    "Record",
    "UnusableRecord",
    "asked_about",
    "level_index",
    "qalign_records",
    "read_records",
    "soft_levels",
    "soft_records",
    "write_records",
]

PLACEHOLDER = "<image>"
"""Stands for the image in a question."""
MOST_IMAGES = 4
"""Images of one conversation (Co-Instruct compares groups of two to four)."""

_PLACES = ("first", "second", "third", "fourth")

_LARGEST = 2**30  # bytes; the 665 thousand records of LLaVA-v1.5 have about as many


class UnusableRecord(FewerError):
    """A conversation that cannot be trained on, where others of its file can."""


@dataclass(frozen=True)
class Record:
    """One conversation.

    Attributes
    ----------
    id
        Unique in a file by convention only.
    turns
        Questions and answers in turns; the first question holds ``<image>`` where there is an image.
    image
        File, relative to the folder of images; empty for text alone.
    score
        Opinion score of the image (``gt_score``), where known.
    kind
        What it is, such as ``yes-no``; stays in our files and is left out by readers that do not know it.
    others
        Further images of a conversation about several (Co-Instruct), :data:`MOST_IMAGES` in all; the first question
        holds one ``<image>`` for each.
    """

    id: str
    turns: tuple[tuple[str, str], ...]
    image: str = ""
    score: float | None = None
    kind: str = ""
    others: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """All images in their order; empty for text alone."""
        return (self.image, *self.others) if self.image else ()

    def to_dict(self) -> dict[str, Any]:
        """The record as LLaVA-v1.5 has it.

        Examples
        --------
        >>> Record("a", (("<image>\\nIs it blurry?", "Yes"),), "a.jpg").to_dict()["conversations"][1]
        {'from': 'gpt', 'value': 'Yes'}
        """
        told: dict[str, Any] = {"id": self.id}
        if self.image:
            told["image"] = [*self.images] if self.others else self.image
        if self.score is not None:
            told["gt_score"] = self.score
        if self.kind:
            told["kind"] = self.kind
        talk = []
        for question, answer in self.turns:
            talk += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        return told | {"conversations": talk}


def asked_about(images: int, question: str) -> str:
    """A question with a placeholder for each of its images in front, numbered where there are several.

    Examples
    --------
    >>> asked_about(1, "Is it sharp?"), asked_about(2, "Which one?")
    ('<image>\\nIs it sharp?', 'The first image: <image>\\nThe second image: <image>\\nWhich one?')
    """
    if images < 2:
        return f"{PLACEHOLDER}\n" * images + question
    return "".join(f"The {place} image: {PLACEHOLDER}\n" for place in _PLACES[:images]) + question


def read_records(path: str | Path, unusable: list[str] | None = None) -> list[Record]:
    """Read conversations in the form of LLaVA-v1.5; ``<|image|>`` of mPLUG-Owl2 is read as ``<image>``.

    Files of JSON Lines, and the forms of other tools that :func:`fewer.tasks.quality.foreign.as_llava` knows, are read
    as well.

    Parameters
    ----------
    path
        The file.
    unusable
        Takes a sentence about each conversation that cannot be used, which is left out; without it, the first one ends
        the reading.

    Raises
    ------
    FewerError
        When a record is not of that form. A record with an image but without ``<image>``, or the other way round, and
        one about a video would train without what it is about.
    """
    if Path(path).suffix == ".jsonl":
        lines = read_text(path, _LARGEST, "list of conversations").removeprefix("\ufeff").split("\n")
        values: Any = [parse_json(line, f"{path}: line {n + 1}") for n, line in enumerate(lines) if line.strip()]
    else:
        values = read_json(path, _LARGEST)
    if not isinstance(values, list):
        raise FewerError(f"{path} holds no list of conversations; give a JSON file in the form of LLaVA-v1.5")
    if not values:
        raise FewerError(f"{path} holds no conversation")
    records = []
    for place, value in enumerate(values):
        try:
            records.append(_record(value, f"{path}: record {place}"))
        except UnusableRecord as error:
            if unusable is None:
                raise
            unusable.append(str(error))
    if not records:
        raise FewerError(f"none of the {len(values)} conversations can be used; the first: {(unusable or [''])[0]}")
    return records


def _record(value: Any, where: str) -> Record:
    if not isinstance(value, Mapping):
        raise UnusableRecord(f"{where} is no object; see docs/quality.md for the form")
    value = as_llava(value)
    name = str(value.get("id", ""))
    where = f"{where} ({name[:60]})"
    talk = value.get("conversations")
    if not isinstance(talk, list) or len(talk) < 2 or len(talk) % 2:
        raise UnusableRecord(f"{where} needs conversations: questions of human and answers of gpt in turns")
    texts = []
    for place, part in enumerate(talk):
        who = "gpt" if place % 2 else "human"
        if not isinstance(part, Mapping) or part.get("from") != who or not isinstance(part.get("value"), str):
            raise UnusableRecord(f"{where}: turn {place} must be from {who} and have a text as value")
        texts.append(part["value"])
    image, *others = _names(value.get("image") or "", where)
    if value.get("video") or value.get("videos") or (not image and _stands_for("<video>", texts[0])):
        raise UnusableRecord(f"{where} is about a video, which is not read; give frames of it as images")
    count = sum(text.count(PLACEHOLDER) for text in texts[::2])
    if not image and any(_stands_for(PLACEHOLDER, text) for text in texts[::2]):
        raise UnusableRecord(f"{where} has {PLACEHOLDER} in a question but names no image; it would train blind")
    if image and (count != 1 + len(others) or texts[0].count(PLACEHOLDER) != count):
        many = f"{1 + len(others)} images but not as many" if others else "an image but no single"
        raise UnusableRecord(f"{where} has {many} {PLACEHOLDER} in its first question; it would train blind")
    score = value.get("gt_score")
    if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float)) or not np.isfinite(score)):
        raise UnusableRecord(f"{where}: gt_score must be a number")
    pairs = tuple(zip(texts[::2], texts[1::2], strict=True))
    number = None if score is None else float(score)
    return Record(name, pairs, image, number, str(value.get("kind", "")), tuple(others))


def _stands_for(tag: str, text: str) -> bool:
    """Whether a tag stands for something to look at: in front of a text or on a line of its own; else it is a word."""
    return text.lstrip().startswith(tag) or any(line.strip() == tag for line in text.splitlines())


def _names(image: Any, where: str) -> list[str]:
    """Names of the images of a record: of one, of several, or an empty one for none."""
    names = list(image) if isinstance(image, (list, tuple)) else [image]
    if not names:
        return [""]
    if not all(isinstance(name, str) for name in names) or (len(names) > 1 and not all(names)):
        raise UnusableRecord(f"{where}: image must be the name of a file, or a list of such names")
    if len(names) > MOST_IMAGES:
        raise UnusableRecord(f"{where} has {len(names)} images; {MOST_IMAGES} at most are possible")
    return names


def write_records(path: str | Path, records: Iterable[Record], placeholder: str = PLACEHOLDER) -> Path:
    """Write conversations in the form of LLaVA-v1.5.

    Parameters
    ----------
    path
        The JSON file.
    records
        To write.
    placeholder
        What stands for the image; mPLUG-Owl2 needs ``<|image|>``.
    """
    told = []
    for record in records:
        turns = tuple((question.replace(PLACEHOLDER, placeholder), answer) for question, answer in record.turns)
        told.append(replace(record, turns=turns).to_dict())
    return atomic_write_text(path, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def level_index(
    scores: Sequence[float] | np.ndarray, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """The level of every score: five parts of equal width between the least and the largest one (Q-Align, eq. 2).

    Returns
    -------
    array [N] of int
        0 (bad) to 4 (excellent).

    Examples
    --------
    >>> level_index([0, 50, 100]).tolist()
    [0, 2, 4]
    """
    values = np.asarray(scores, float)
    if not len(values):
        raise FewerError("there are no scores; give a table of files and numbers")
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    if not high > low:
        raise FewerError("all scores are alike, so there are no levels; give scores that differ")
    return np.clip(np.floor((values - low) / (high - low) * 5), 0, 4).astype(int)


def qalign_records(scores: Mapping[str, float], low: float | None = None, high: float | None = None) -> list[Record]:
    """Records that teach the five rating words in place of numbers (Q-Align, ICML 2024).

    Parameters
    ----------
    scores
        Opinion score by image, higher is better.
    low, high
        Ends of the scale; those of the scores by default.

    Examples
    --------
    >>> [record.turns[0][1] for record in qalign_records({"a.jpg": 10, "b.jpg": 90})]
    ['The quality of the image is bad.', 'The quality of the image is excellent.']
    """
    levels = level_index(list(scores.values()), low, high)
    return [_rated(name, score, level) for (name, score), level in zip(scores.items(), levels, strict=True)]


def _rated(name: str, score: float, level: int) -> Record:
    question = f"{PLACEHOLDER}\nHow would you rate the quality of this image?"
    answer = f"The quality of the image is {LEVELS[level]}."
    return Record(f"{name}->{score:g}", ((question, answer),), name, float(score), "level")


def soft_levels(
    scores: Sequence[float] | np.ndarray,
    spreads: Sequence[float] | np.ndarray,
    low: float | None = None,
    high: float | None = None,
) -> np.ndarray:
    """Probabilities of the five levels (DeQA-Score, CVPR 2025): a normal distribution of opinions, cut into levels.

    The mass beyond both ends is made up for by a factor and an offset that keep the sum at 1 and the mean at the score,
    as in the paper's equations; where they would give a negative number, it is 0 and the rest is scaled.

    Parameters
    ----------
    scores, spreads
        [N] mean and standard deviation of the opinions.
    low, high
        Ends of the scale; those of the scores by default.

    Returns
    -------
    array [N, 5]
        From bad to excellent.

    Examples
    --------
    >>> soft_levels([3.0], [0.0], 1, 5).round(3).tolist()
    [[0.0, 0.0, 1.0, 0.0, 0.0]]
    """
    values, width = np.asarray(scores, float), np.asarray(spreads, float)
    if not len(values):
        raise FewerError("there are no scores; give a table of files, numbers and deviations")
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    if not high > low or (width < 0).any() or len(values) != len(width):
        raise FewerError("soft levels need scores that differ, and for each of them a deviation of 0 or more")
    mean = 1 + 4 * (np.clip(values, low, high) - low) / (high - low)
    wide = np.maximum(4 * width / (high - low), 1e-6)
    edges = (np.arange(6) + 0.5 - mean[:, None]) / wide[:, None]
    mass = np.diff(np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)))(edges), axis=1)
    levels = np.arange(1, 6)
    found = np.empty_like(mass)
    for row, (p, mu) in enumerate(zip(mass, mean, strict=True)):
        system = np.array([[p.sum(), 5.0], [p @ levels, 15.0]])
        solvable = abs(np.linalg.det(system)) > 1e-9
        factor, offset = np.linalg.solve(system, [1.0, mu]) if solvable else (1 / p.sum(), 0.0)
        found[row] = np.maximum(factor * p + offset, 0.0)
    return found / found.sum(1, keepdims=True)


def soft_records(
    scores: Mapping[str, tuple[float, float]], copies: int = 10, low: float | None = None, high: float | None = None
) -> list[Record]:
    """Records of the five rating words, as many of each as its probability says (after DeQA-Score).

    Cross entropy over such records is that with the probabilities themselves as target, up to the rounding to copies.

    Parameters
    ----------
    scores
        Mean and standard deviation of the opinions, by image.
    copies
        Records for each image.
    low, high
        Ends of the scale.

    Examples
    --------
    >>> made = soft_records({"a.jpg": (3.0, 0.8), "b.jpg": (4.0, 0.1)}, low=1, high=5)
    >>> len(made), len({record.turns for record in made if record.image == "a.jpg"})
    (20, 3)
    """
    pairs = list(scores.values())
    shares = soft_levels([mean for mean, _ in pairs], [wide for _, wide in pairs], low, high) * copies
    records = []
    for (name, (mean, _)), share in zip(scores.items(), shares, strict=True):
        counts = np.floor(share).astype(int)
        for level in np.argsort(counts - share, kind="stable")[: copies - int(counts.sum())]:
            counts[level] += 1  # the largest remainders
        records += [_rated(name, mean, level) for level in range(5) for _ in range(counts[level])]
    return records
