"""Convert pathways into instruction data (Q-Instruct, part c), with counts of all that was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.progress import Progress, Silent
from fewer.study.pathway import Pathway
from fewer.study.tables import is_table, read_names, read_scores
from fewer.study.vocabulary import statements
from fewer.tasks.quality.convert.compare import compare_texts, holds_pairs, read_pairs
from fewer.tasks.quality.convert.items import Item, check_items, parse_list
from fewer.tasks.quality.convert.writers import KINDS, RuleWriter, Writer
from fewer.tasks.quality.description import PROMPT as DESCRIBE
from fewer.tasks.quality.description import holds_descriptions, read_descriptions
from fewer.tasks.quality.questions import Question, prompt, read_questions
from fewer.tasks.quality.records import PLACEHOLDER, Record, write_records

__all__ = ["REQUESTS", "Converted", "convert", "evaluation_images"]

REQUESTS = (
    "Describe how this image looks in detail, then evaluate its quality.",
    "What do the low-level attributes of this image look like? Conclude with its overall quality.",
    "Explain the quality of this image from what you see.",
    "Assess this image: first its appearance, then its overall quality.",
    DESCRIBE,
)
"""Paraphrases of the request that a pathway answers; the last one is what Q-Bench asks."""
_BANNED = "an image of an evaluation set"


@dataclass(frozen=True, repr=False)
class Converted(Told):
    """Instruction data.

    Attributes
    ----------
    records
        Conversations in the form of LLaVA-v1.5.
    dropped
        Number of items by reason; also of lists that no answer of the writer held.
    writer
        Who wrote the questions.
    unmentioned
        Share of yes-or-no items whose No means only that the text says nothing of it.
    """

    records: tuple[Record, ...]
    dropped: dict[str, int]
    writer: str
    unmentioned: float

    @property
    def counts(self) -> dict[str, int]:
        """Records by kind."""
        return dict(Counter(record.kind for record in self.records))

    def without(self, banned: Collection[str]) -> Converted:
        """The conversations that have no image of an evaluation set; how many have one is counted.

        Raises
        ------
        FewerError
            When nothing is left.
        """
        names = {Path(name).name for name in banned} | set(banned)
        left = [r for r in self.records if not any(n in names or Path(n).name in names for n in r.images)]
        if not left:
            raise FewerError("nothing is left: all images are of evaluation sets, or there is no entry")
        gone = len(self.records) - len(left)
        dropped = {**self.dropped, _BANNED: gone} if gone else self.dropped
        return replace(self, records=tuple(left), dropped=dropped)

    def save(self, path: str | Path) -> Path:
        """Write the records."""
        return write_records(path, self.records)

    def lines(self) -> list[str]:
        """Counts and what was left out."""
        told = [f"{len(self.records)} conversations, written by {self.writer}"]
        told += [f"{count:6d}  {kind}" for kind, count in sorted(self.counts.items())]
        told += [f"left out {count}: {reason}" for reason, count in sorted(self.dropped.items())]
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        facts = {"writer": self.writer, "counts": self.counts, "dropped": self.dropped}
        return {**facts, "unmentioned": self.unmentioned}


def convert(
    pathways: Sequence[Pathway],
    writer: Writer | None = None,
    *,
    kinds: Sequence[str] = ("pathway", *KINDS),
    evaluation: Collection[str] = (),
    hashes: Mapping[str, str] | None = None,
    unmentioned: bool = True,
    choices: bool = True,
    attempts: int = 3,
    pairs: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Converted:
    """Convert pathways.

    Parameters
    ----------
    pathways
        Of a study.
    writer
        The rules by default.
    kinds
        ``pathway`` (the text itself answers a request), ``what-how``, ``yes-no`` and ``conversation``.
    evaluation
        Images of evaluation sets, by file name or, with ``hashes``, by hash: nothing of them may train.
    hashes
        Content hash by image name.
    unmentioned
        Keep a No to a question of which the text says nothing, as the paper does; some of these are wrong.
    choices
        Each question also as multiple choice, with the options in a random order.
    attempts
        How often a writer is asked for a list, before its items are dropped.
    pairs
        Pairs of images that conversations about two of them are made of; see
        :func:`~fewer.tasks.quality.convert.compare.compare_texts`.
    seed
        Of orders, requests and what balances yes and no.

    Raises
    ------
    FewerError
        When nothing is left.

    Examples
    --------
    >>> done = convert([Pathway("a.png", "r", "The cat is very blurry.", "Overall, the quality is poor.")])
    >>> done.counts["pathway"], done.counts["yes-or-no"]
    (1, 2)
    """
    wrong = [kind for kind in kinds if kind not in ("pathway", *KINDS)]
    if wrong:
        raise FewerError(f"unknown kind {wrong[0]!r}; known are pathway, {', '.join(KINDS)}")
    writer, rng, dropped = writer or RuleWriter(), np.random.default_rng([seed, 26]), Counter()
    banned = {Path(name).name for name in evaluation} | set(evaluation)
    records: list[Record] = []
    used: list[Pathway] = []
    items: list[Item] = []
    with (progress or Silent()).stage("convert", len(pathways)) as stage:
        for number, pathway in enumerate(pathways):
            stage.advance(1)
            pathway = _without_placeholder(pathway)
            if reason := _unusable(pathway, banned, hashes or {}):
                dropped[reason] += 1
                continue
            used.append(pathway)
            if "pathway" in kinds:
                request = f"{PLACEHOLDER}\n{REQUESTS[int(rng.integers(len(REQUESTS)))]}"
                records.append(Record(f"p{number}", ((request, pathway.text),), pathway.image, kind="pathway"))
            for kind in kinds:
                if kind == "pathway":
                    continue
                rows = _ask(writer, kind, pathway, attempts)
                if rows is None:
                    dropped[f"no JSON of the writer ({kind})"] += 1
                elif kind == "conversation":
                    records += _conversation(rows, pathway, number, dropped)
                else:
                    good, reasons = check_items(kind, rows, pathway)
                    dropped.update(reasons)
                    items += good
    items = _balance(items, unmentioned, rng, dropped)
    for number, item in enumerate(items):
        records += _shapes(item, number, choices, rng)
    if not used:
        raise FewerError(
            "nothing is left: every text is empty or about an image of an evaluation set, or there is none"
        )
    if pairs:
        records += compare_texts(used, pairs, seed)
    if not records:
        raise FewerError("nothing is left after the checks; look at the texts: fewer study status")
    asked = [item for item in items if item.kind == "yes-or-no"]
    share = float(np.mean([item.unmentioned for item in asked])) if asked else 0.0
    return Converted(tuple(records), dict(dropped), writer.name, share)


def evaluation_images(files: Sequence[str | Path]) -> set[str]:
    """Images of evaluation sets, which may not train: of questions, golden descriptions, opinions or pairs.

    Examples
    --------
    >>> evaluation_images([])
    set()
    """
    found: set[str] = set()
    for file in map(Path, files):
        if holds_pairs(file):
            found |= {name for pair in read_pairs(file)[0] for name in pair}
        elif is_table(file):
            found |= _names_in(file)
        elif holds_descriptions(file):
            found |= set(read_descriptions(file))
        else:
            found |= {name for question in read_questions(file) for name in question.images}
    return found


def _names_in(table: Path) -> set[str]:
    """Images of a table of opinions, or of a list of names in a file of text."""
    try:
        return set(read_scores(table))
    except FewerError:
        if table.suffix.lower() != ".txt":
            raise
        return set(read_names(table))


def _without_placeholder(pathway: Pathway) -> Pathway:
    """A text in which a rater wrote what stands for an image; an answer may not hold one."""
    parts = (part.replace(PLACEHOLDER, "").strip() for part in (pathway.description, pathway.conclusion))
    return replace(pathway, **dict(zip(("description", "conclusion"), parts, strict=True)))


def _unusable(pathway: Pathway, banned: Collection[str], hashes: Mapping[str, str]) -> str:
    """Why nothing is made of a text; empty where something is."""
    if Path(pathway.image).name in banned or hashes.get(pathway.image) in banned:
        return _BANNED
    # a model would learn to say nothing, or No to every question
    return "" if pathway.text else "an empty text"


def _ask(writer: Writer, kind: str, pathway: Pathway, attempts: int) -> list[Any] | None:
    for attempt in range(attempts):
        rows = parse_list(writer.write(kind, pathway, attempt))
        if rows is not None:
            return rows
    return None


def _conversation(rows: list[Any], pathway: Pathway, number: int, dropped: Counter[str]) -> list[Record]:
    turns = []
    for row in rows:
        query, response = (row.get(key) if isinstance(row, Mapping) else None for key in ("query", "response"))
        if not isinstance(query, str) or not isinstance(response, str) or not query.strip() or not response.strip():
            dropped["a turn without query or response"] += 1
            return []
        turns.append((query.replace(PLACEHOLDER, "").strip(), response.replace(PLACEHOLDER, "").strip()))
    if not turns:
        return []
    turns[0] = (f"{PLACEHOLDER}\n{turns[0][0]}", turns[0][1])
    return [Record(f"c{number}", tuple(turns), pathway.image, kind="conversation")]


def _balance(items: list[Item], unmentioned: bool, rng: np.random.Generator, dropped: Counter[str]) -> list[Item]:
    """As many yes as no for every claim, drawn; of questions of one text about nothing, the first to go.

    Balanced over all questions alone, "is it noisy" would still be mostly no and "is it sharp" mostly yes, and a model
    could answer without looking at the image.
    """
    if not unmentioned:
        gone = [item for item in items if item.unmentioned]
        dropped["not mentioned in the text"] += len(gone)
        items = [item for item in items if not item.unmentioned]
    groups: dict[Any, tuple[list[int], list[int]]] = {}
    for i, item in enumerate(items):
        if item.kind == "yes-or-no":
            claims = statements(item.question)
            key = (claims[0].aspect, claims[0].word) if claims else None
            groups.setdefault(key, ([], []))[item.answer == "Yes"].append(i)
    pairs = [pair for pair in groups.values() if all(pair)]
    alone = [pair for pair in groups.values() if not all(pair)]  # claims that were always yes or always no, together
    pairs.append(([i for no, _ in alone for i in no], [i for _, yes in alone for i in yes]))
    out: set[int] = set()
    for no, yes in pairs:
        more, less = (yes, no) if len(yes) > len(no) else (no, yes)
        order = rng.permutation(len(more))
        # what a text says is worth more than what it is silent about
        ranked = sorted(order.tolist(), key=lambda i: items[more[i]].unmentioned)
        out |= {more[i] for i in ranked[len(less) :]}
    if out:
        dropped["left out to balance yes and no"] += len(out)
    common = _common(items, rng)
    if common:
        dropped["left out, since one answer to the question was the most frequent by far"] += len(common)
    out |= common
    return [item for i, item in enumerate(items) if i not in out]


def _common(items: list[Item], rng: np.random.Generator) -> set[int]:
    """Items beyond as many of a question's most frequent answer as there are of the next one.

    Raters praise more aspects than they blame; "how is the noise" would be answered with low nine times of ten.
    Questions that have one answer only, such as those of a language model, stay.
    """
    answers: dict[str, dict[str, list[int]]] = {}
    for i, item in enumerate(items):
        if item.kind != "yes-or-no":
            answers.setdefault(item.question.lower(), {}).setdefault(item.answer.lower(), []).append(i)
    out: set[int] = set()
    for found in answers.values():
        ranked = sorted(found.values(), key=len, reverse=True)
        if len(ranked) > 1:
            out |= {ranked[0][i] for i in rng.permutation(len(ranked[0]))[len(ranked[1]) :]}
    return out


def _shapes(item: Item, number: int, choices: bool, rng: np.random.Generator) -> list[Record]:
    direct = ((f"{PLACEHOLDER}\n{item.question}", item.answer),)
    records = [Record(f"q{number}", direct, item.image, kind=item.kind)]
    if choices:
        options = [item.answer, *item.wrong]
        order = rng.permutation(len(options))
        shuffled = tuple(options[i] for i in order)
        right = int(np.flatnonzero(order == 0)[0])
        asked = Question(item.image, item.question, shuffled, right, item.kind)
        turn = (f"{PLACEHOLDER}\n{prompt(asked)}", "ABCDEFGH"[right])
        records.append(Record(f"m{number}", (turn,), item.image, kind=f"{item.kind} choice"))
    return records
