"""Scores of images by a model or from a file, held against opinion scores or against pairs of which one is better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import read_json
from fewer.study.tables import read_opinions
from fewer.tasks.quality.assessment import PROMPT, halves
from fewer.tasks.quality.convert.compare import BETTER_QUESTION, read_pairs
from fewer.tasks.quality.correlation import correlations, pair_accuracy
from fewer.tasks.quality.settings import EvaluateSettings
from fewer.tasks.quality.word_logits import WORDS, read_word_logits, score_words, words_in

__all__ = ["against_opinions", "against_pairs"]

_WAYS = {
    "two": "softmax of good and poor (Q-Bench)",
    "three": "softmax of good, average and poor (Q-Boost)",
    "five": "five levels (Q-Align)",
}


def against_opinions(
    target: str | Path, data: Path, settings: EvaluateSettings, device: str
) -> tuple[dict[str, float], str]:
    """SRCC and PLCC with a table ``file,score``, and where the scores come from.

    Raises
    ------
    FewerError
        When fewer than two images have a score and an opinion.
    """
    table = read_opinions(data)
    opinions = table.scores
    names = list(opinions)[: settings.limit or None]
    scores, note = _scores(target, names, data, settings, device)
    note += f"; opinions: {table.note}" if table.note else ""
    common = [name for name in names if name in scores]
    if len(common) < 2:
        raise FewerError(f"{target} and {data} have no two images in common; names must be the same")
    if len(common) < len(names):
        note += f"; {len(names) - len(common)} images of {data.name} have no score, or are not there, and were left out"
    groups = halves(tuple(common)) if settings.halves else None
    mine, theirs = (np.array([of[name] for name in common]) for of in (scores, opinions))
    return correlations(mine, theirs, groups), note


def against_pairs(
    target: str | Path, data: Path, settings: EvaluateSettings, device: str
) -> tuple[dict[str, float], str]:
    """Share of pairs that a model orders as people did; pairs that look the same are left out.

    The scores of single images order them, or, with ``settings.together``, the answers to questions about both.

    Raises
    ------
    FewerError
        When an answer is none of left, right and same, or no pair is left.
    """
    pairs, same = read_pairs(data)
    pairs = pairs[: settings.limit or None]
    if not pairs:
        raise FewerError(f"{data} holds no pair of which one image is better")
    left_out = [f"{same} pairs look the same"] if same else []
    if settings.together:
        numbers, told = _together(target, pairs, data, settings, device)
    else:
        names = list(dict.fromkeys(name for pair in pairs for name in pair))
        scores, note = _scores(target, names, data, settings, device)
        known = [pair for pair in pairs if pair[0] in scores and pair[1] in scores]
        if not known:
            raise FewerError(f"{target} has no scores for both images of any pair of {data}; names must be the same")
        left_out += [f"{len(pairs) - len(known)} have no score"] if len(known) < len(pairs) else []
        numbers = {"pair accuracy": pair_accuracy(scores, known)}
        told = f"{len(known)} pairs, by the scores of single images: {note}"
    told += f"; left out: {', '.join(left_out)}" if left_out else ""
    return {**numbers, "chance": 0.5}, told


def _together(
    target: str | Path, pairs: list[tuple[str, str]], data: Path, settings: EvaluateSettings, device: str
) -> tuple[dict[str, float], str]:
    """Pairs by one question about both images, in both orders."""
    from fewer.tasks.quality.asking import better
    from fewer.tasks.quality.compressing import open_tuned

    if not Path(target).is_dir():
        raise FewerError(f"--together asks a model about two images at once; {target} is no run of fewer tune")
    tuned = open_tuned(target, device)
    pictures = tuned.pictures(settings.images or data.parent)
    pictures.need((name for pair in pairs for name in pair), data)
    wins, same = better(tuned, pictures, pairs)
    numbers = {"pair accuracy": float(np.mean((wins > 0) + 0.5 * (wins == 0))), "same in both orders": same}
    return numbers, f"{len(pairs)} pairs, by {BETTER_QUESTION!r} about both images at once, in both orders"


def _scores(
    target: str | Path, names: list[str], data: Path, settings: EvaluateSettings, device: str
) -> tuple[dict[str, float], str]:
    """Scores by image: of a run, of what ``fewer predict`` wrote, or of a file of logits; and how they were made."""
    if Path(target).is_dir():
        from fewer.tasks.quality.asking import level_scores, word_logits
        from fewer.tasks.quality.compressing import open_tuned

        tuned = open_tuned(target, device)
        pictures = tuned.pictures(settings.images or data.parent)
        missing = set(pictures.missing(names))
        if len(missing) == len(names):
            pictures.need(names, data)
        # a published table names a whole database, of which a laboratory often has a part
        names = [name for name in names if name not in missing]
        if settings.words in ("two", "three"):
            words = WORDS[settings.words]
            columns = dict(zip(words, word_logits(tuned, pictures, names, words, PROMPT).T, strict=True))
            found = score_words(columns, settings.words, settings.temperature)
            note = f"{_WAYS[settings.words]} at temperature {settings.temperature:g} after {PROMPT!r}, without a fit"
            return dict(zip(names, found.tolist(), strict=True)), note
        found = level_scores(tuned, pictures, names)
        return dict(zip(names, found.tolist(), strict=True)), tuned.levels.note
    values: Any = read_json(target, 2**28)
    if isinstance(values, dict) and isinstance(values.get("images"), dict):
        rows = values["images"].items()
        told = {name: row["score"] for name, row in rows if isinstance(row, dict) and "score" in row}
        if not all(isinstance(score, (int, float)) for score in told.values()):
            raise FewerError(f"{target}: a score is no number")
        return {name: float(score) for name, score in told.items()}, f"scores of {Path(target).name}"
    files, logits = read_word_logits(target)
    way = words_in(logits, settings.words)
    scores = score_words(logits, way, settings.temperature)
    note = f"{_WAYS[way]} after {PROMPT!r}"
    if way != "five":
        note = f"{_WAYS[way]} at temperature {settings.temperature:g} after {PROMPT!r}"
    return dict(zip(files, scores.tolist(), strict=True)), f"{note}, without a fit"
