"""The page of a study's owner: progress, scores, raters that need a look, and flags of texts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.reading import refusing
from fewer.reports.page import Page, Section, Table, Tile
from fewer.study.export import answers_of, pathways_of, votes_of
from fewer.study.pathway import check_texts
from fewer.study.scores import agreement, p910, reject_bt500
from fewer.study.store import Store

__all__ = ["Status", "owner_page", "status"]


@dataclass(frozen=True, repr=False)
class Status(Told):
    """Where a study stands.

    Attributes
    ----------
    title
        Of the study.
    raters
        By pseudonym: answers, items, gold images answered and right within one level, difference of repeats, bias,
        inconsistency, flags of texts, and whether BT.500 rejects them.
    images, answers
        Counts.
    agreement
        Krippendorff's alpha of the levels; NaN where too few are there.
    flags
        Number of flags by kind.
    """

    title: str
    raters: dict[str, dict[str, Any]]
    images: int
    answers: int
    agreement: float
    flags: dict[str, int]

    def lines(self) -> list[str]:
        """A few sentences."""
        active = sum(row["answers"] > 0 for row in self.raters.values())
        alpha = "not known yet" if np.isnan(self.agreement) else f"{self.agreement:.2f}"
        told = [f"{self.title}: {self.answers} answers of {active} raters on {self.images} images; agreement {alpha}"]
        told += [f"{count} texts: {what}" for what, count in sorted(self.flags.items())]
        told += [f"{name}: rejected by BT.500" for name, row in self.raters.items() if row["rejected"]]
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        alpha = None if np.isnan(self.agreement) else self.agreement
        facts = {"title": self.title, "images": self.images, "answers": self.answers, "agreement": alpha}
        return {**facts, "flags": self.flags, "raters": self.raters}


def status(store: Store) -> Status:
    """Count, score and check what a study has so far.

    Gold images and repeats are judged by levels: those of the form acr, and those that the conclusions of texts say.

    Raises
    ------
    FewerError
        When the study is damaged.
    """
    with refusing(str(store.path), "restore it from a backup"):
        return _status(store)


def _status(store: Store) -> Status:
    answers = answers_of(store)
    pathways = pathways_of(store)
    flags = check_texts(pathways)
    rows: dict[str, dict[str, Any]] = {}
    totals = (
        "SELECT r.name, COUNT(i.id) AS total FROM raters r LEFT JOIN items i ON i.rater = r.id "
        "WHERE r.owner = 0 AND r.deleted = 0 GROUP BY r.id"
    )
    for row in store.rows(totals):
        rows[row["name"]] = {"answers": 0, "items": row["total"], "gold": 0, "gold_right": 0, "repeat_difference": None}
        rows[row["name"]] |= {"bias": None, "inconsistency": None, "flags": 0, "rejected": False}
    levels: dict[tuple[str, str, str], list[int]] = {}
    for answer in answers:
        row = rows[answer["rater"]]
        row["answers"] += 1
        level = _level(answer)
        if level is None:
            continue
        levels.setdefault((answer["rater"], answer["form"], answer["image"]), []).append(level)
        if answer["gold"] is not None:
            row["gold"] += 1
            row["gold_right"] += abs(level - answer["gold"]) <= 1
    differences: dict[str, list[int]] = {}
    for (rater, _, _), seen in levels.items():
        differences.setdefault(rater, []).extend(abs(a - b) for a, b in pairwise(seen))
    for rater, values in differences.items():
        rows[rater]["repeat_difference"] = float(np.mean(values)) if values else None
    for rater, count in Counter(flag.rater for flag in flags).items():
        rows[rater]["flags"] = count
    alpha = _rate(store, rows)
    images = store.rows("SELECT COUNT(*) AS n FROM images WHERE training = 0")[0]["n"]
    kinds = dict(Counter(flag.what for flag in flags))
    return Status(store.settings.title, rows, images, len(answers), alpha, kinds)


def _level(answer: dict[str, Any]) -> int | None:
    from fewer.study.pathway import Pathway

    if answer["form"] == "acr":
        return int(answer["answer"]["level"])
    if answer["form"] == "pathway":
        return Pathway("", "", answer["answer"]["description"], answer["answer"]["conclusion"]).level
    return None


def _rate(store: Store, rows: dict[str, dict[str, Any]]) -> float:
    """Put bias, inconsistency and rejection into the rows; gives the agreement."""
    try:
        votes = votes_of(store)
    except FewerError:
        return float("nan")
    made = p910(votes)
    for name in made.bias:
        rows[name]["bias"], rows[name]["inconsistency"] = made.bias[name], made.inconsistency[name]
    for name in reject_bt500(votes).rejected:
        rows[name]["rejected"] = True
    return agreement(votes)


def owner_page(store: Store) -> Page:
    """The page; it loads nothing from elsewhere and can be kept."""
    found = status(store)

    def cell(value: Any) -> str:
        return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    head = ["rater", "answers", "of", "gold right", "of", "repeats differ", "bias", "inconsistency", "flags", "BT.500"]
    keys = ("answers", "items", "gold_right", "gold", "repeat_difference", "bias", "inconsistency", "flags")
    table = [
        [name, *(cell(row[key]) for key in keys), "rejected" if row["rejected"] else ""]
        for name, row in found.raters.items()
    ]
    alpha = "–" if np.isnan(found.agreement) else f"{found.agreement:.2f}"  # noqa: RUF001
    total = sum(row["items"] for row in found.raters.values())
    sections = [Section(name="raters", title="Raters", tables=[Table(head=head, rows=table)])]
    try:
        scores = p910(votes_of(store))
        order = np.argsort(scores.score)
        shown = [order[0:10], order[-10:]] if len(order) > 20 else [order]
        rows = [
            [scores.stimuli[i], f"{scores.score[i]:.2f}", f"{scores.deviation[i]:.2f}", str(scores.votes[i])]
            for part in shown
            for i in part
        ]
        words = ["Scores by ITU-T P.910 (annex E), from 1 (bad) to 5 (excellent); the worst and the best ones."]
        tables = [Table(head=["image", "score", "standard error", "votes"], rows=rows)]
        sections.append(Section(name="scores", title="Scores", words=words, tables=tables))
    except FewerError:
        pass  # no votes yet
    if found.flags:
        rows = [[what, str(count)] for what, count in sorted(found.flags.items())]
        sections.append(
            Section(name="texts", title="Texts to look at", tables=[Table(head=["flag", "texts"], rows=rows)])
        )
    return Page(
        title=found.title,
        badge="study",
        sentence=f"{found.answers} of {total} answers.",
        tiles=[Tile(name="agreement (alpha)", value=alpha), Tile(name="images", value=str(found.images))],
        sections=sections,
        data=found.to_dict(),
    )
