"""Conversations about two images at once (Co-Instruct, ECCV 2024), made of texts about one image each, or of votes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.study.pathway import Pathway
from fewer.study.tables import is_table, table_rows
from fewer.study.vocabulary import ASPECTS, statements
from fewer.tasks.quality.records import Record, asked_about

__all__ = ["BETTER_QUESTION", "ORDINALS", "compare_texts", "holds_pairs", "pair_records", "read_pairs"]

BETTER_QUESTION = "Which image has the better overall quality?"
"""What is asked about two images at once."""
ORDINALS = ("The first image", "The second image")
"""Its answers."""
_TOGETHER = "Compare how these two images look, then say which one has the better quality."
_COLUMNS = ("image", "other", "better")
_SIDES = {"left": 0, "right": 1}


def compare_texts(pathways: Sequence[Pathway], count: int, seed: int = 0) -> list[Record]:
    """Conversations about pairs of images, made of what people wrote about each of them.

    The paper lets a language model merge texts of single images; here it is done by rules. A pair whose conclusions
    differ is asked for the better image, and answered with both texts as the reason; a pair of which one text praises
    an aspect that the other blames is asked for that aspect. The first image wins as often as the second one.

    Parameters
    ----------
    pathways
        Texts; of several about one image, one is drawn for each pair.
    count
        Pairs of images that are drawn.
    seed
        Of the pairs and their order.

    Raises
    ------
    FewerError
        When there are no two images, or no pair of them differs.

    Examples
    --------
    >>> texts = [Pathway("a", "r", "It is blurry.", "The quality is poor."),
    ...          Pathway("b", "r", "It is sharp.", "The quality is good.")]
    >>> sorted({record.turns[0][0].split("\\n")[-1] for record in compare_texts(texts, 1)})[-1]
    'Which image has the better sharpness?'
    """
    about: dict[str, list[Pathway]] = {}
    for text in pathways:
        about.setdefault(text.image, []).append(text)
    names = list(about)
    if len(names) < 2:
        raise FewerError(f"a comparison needs texts about two images at least; there is {len(names)}")
    rng = np.random.default_rng([seed, 27])
    records: list[Record] = []
    turn: dict[str, int] = {}
    for _ in range(count):
        first, second = (about[names[int(i)]] for i in rng.choice(len(names), 2, replace=False))
        pair = (first[int(rng.integers(len(first)))], second[int(rng.integers(len(second)))])
        for asked, winner in _differences(*pair):
            # the winner stands in front in every other record of a question
            turn[asked] = turn.get(asked, int(rng.integers(2))) + 1
            front = winner if turn[asked] % 2 else 1 - winner
            records.append(_record(asked, (pair[front], pair[1 - front]), 0 if front == winner else 1, len(records)))
    if not records:
        raise FewerError("no two texts differ in their conclusion or in an aspect, so there is nothing to compare")
    return records


def _differences(first: Pathway, second: Pathway) -> list[tuple[str, int]]:
    """Questions whose answers follow from two texts, and which of them wins (0 or 1)."""
    found = []
    if first.level is not None and second.level is not None and first.level != second.level:
        winner = 0 if first.level > second.level else 1
        found += [(BETTER_QUESTION, winner), (_TOGETHER, winner)]
    said = [_signs(text) for text in (first, second)]
    for aspect in ASPECTS:
        both = [signs.get(aspect) for signs in said]
        if both in (["good", "bad"], ["bad", "good"]):
            found.append((f"Which image has the better {aspect}?", both.index("good")))
    return found


def _signs(text: Pathway) -> dict[str, str]:
    """By aspect, whether a text praises or blames it; aspects of both are left out."""
    found: dict[str, set[str]] = {}
    for one in statements(text.description):
        found.setdefault(one.aspect, set()).add(one.polarity)
    return {aspect: next(iter(signs)) for aspect, signs in found.items() if len(signs) == 1}


def _record(asked: str, pair: tuple[Pathway, Pathway], winner: int, number: int) -> Record:
    answer = ORDINALS[winner]
    if asked == _TOGETHER:
        told = [f"{name}: {text.text}" for name, text in zip(ORDINALS, pair, strict=True)]
        answer = " ".join([*told, f"{answer} has the better quality."])
    return Record(
        f"b{number}", ((asked_about(2, asked), answer),), pair[0].image, kind="comparison", others=(pair[1].image,)
    )


def pair_records(pairs: Sequence[tuple[str, str]]) -> list[Record]:
    """Records of votes (better, worse): each pair in both orders, so that neither place wins more often.

    Examples
    --------
    >>> [record.turns[0][1] for record in pair_records([("a", "b")])]
    ['The first image', 'The second image']
    """
    records = []
    for number, (better, worse) in enumerate(pairs):
        for place, (first, second) in enumerate(((better, worse), (worse, better))):
            turn = (asked_about(2, BETTER_QUESTION), ORDINALS[place])
            records.append(Record(f"v{number}-{place}", (turn,), first, kind="comparison", others=(second,)))
    return records


def holds_pairs(data: Path) -> bool:
    """Whether a table compares two images, as ``pairs.csv`` of a study does.

    Examples
    --------
    >>> holds_pairs(Path("no-such-file.csv"))
    False
    """
    if not is_table(data) or not data.is_file():
        return False
    rows = table_rows(data)
    return bool(rows) and set(_COLUMNS) <= {cell.lower() for cell in rows[0][1]}


def read_pairs(data: Path) -> tuple[list[tuple[str, str]], int]:
    """Pairs (better, worse) of a table of comparisons, and how many pairs look the same and were left out.

    Raises
    ------
    FewerError
        When an answer is none of left, right and same.
    """
    pairs: list[tuple[str, str]] = []
    same = 0
    (_, head), *rows = table_rows(data)
    for line, row in rows:
        plain = dict.fromkeys(_COLUMNS, "") | dict(zip([cell.lower() for cell in head], row, strict=False))
        better = plain["better"].lower()
        if better == "same":
            same += 1
        elif better in _SIDES and plain["image"] and plain["other"]:
            both = plain["image"], plain["other"]
            first = _SIDES[better]
            pairs.append((both[first], both[1 - first]))
        else:
            raise FewerError(f"{data}: line {line} needs image, other, and left, right or same under better")
    return pairs, same
