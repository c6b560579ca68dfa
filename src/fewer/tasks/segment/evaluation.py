"""The result of an evaluation: scores of every structure, means beside their counts, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from fewer.core.display import Told
from fewer.reports.numbers import aligned
from fewer.tasks.segment.metrics import Score

__all__ = ["Evaluation", "Summary"]

POLICY = (
    "Means are over structures that are in the prediction and in the reference. Missed structures (only in the "
    "reference) and spurious ones (only in the prediction) have no distance; they are counted beside every mean. "
    "'Dice, all' takes them in as 0, which is their overlap; 'Dice, pooled' counts the voxels of all cases together."
)
WRONG = 5
"""Missed or spurious structures that are named under the table."""


@dataclass(frozen=True)
class Summary:
    """Scores of one structure over all cases, or of all structures.

    Attributes
    ----------
    structure
        Name of the class, or ``all``.
    references
        Cases whose reference has it.
    found, missed, spurious, absent
        How often; they add up to the number of cases (times classes).
    dice, jaccard, hd95, assd
        Means over the found ones (hd95 and assd in mm); None if nothing was found.
    dice_sd
        Standard deviation of Dice over the found ones; None for fewer than two.
    dice_all
        Mean of Dice with missed and spurious ones as 0; None if there is no such structure anywhere.
    dice_pooled
        Dice of the voxels of all cases together; of ``all``, the mean over classes.
    """

    structure: str
    references: int
    found: int
    missed: int
    spurious: int
    absent: int
    dice: float | None
    dice_sd: float | None
    jaccard: float | None
    hd95: float | None
    assd: float | None
    dice_all: float | None
    dice_pooled: float | None


@dataclass(frozen=True, repr=False)
class Evaluation(Told):
    """Scores of a set of cases.

    Attributes
    ----------
    scores
        One per case and class.
    unit
        Of the distances: ``mm``, or ``pixels`` where the files give no spacing.
    missing
        Cases without a prediction; every structure of theirs is missed.

    Examples
    --------
    >>> scores = [Score("a", "lesion", "found", 8, 2, 2, 0.8, 0.667, 1.0, 0.5), Score("b", "lesion", "missed", 0, 0, 9)]
    >>> result = Evaluation(tuple(scores))
    >>> result.overall.dice, result.overall.missed, result.overall.dice_all
    (0.8, 1, 0.4)
    """

    scores: tuple[Score, ...]
    unit: str = "mm"
    missing: tuple[str, ...] = ()

    @property
    def structures(self) -> list[Summary]:
        """A summary of each class."""
        names = dict.fromkeys(score.structure for score in self.scores)
        return [_summary(name, [s for s in self.scores if s.structure == name]) for name in names]

    @property
    def overall(self) -> Summary:
        """A summary of all classes; its pooled Dice is the mean of theirs."""
        whole = _summary("all", self.scores)
        pooled = [summary.dice_pooled for summary in self.structures if summary.dice_pooled is not None]
        mean = float(np.mean(pooled)) if pooled else None
        return replace(whole, dice_pooled=mean)

    @property
    def cases(self) -> int:
        """Number of cases."""
        return len({score.case for score in self.scores})

    @property
    def worst(self) -> list[Score]:
        """What went wrong, the worst first: missed and spurious structures, then those found by their Dice."""
        present = [score for score in self.scores if score.status != "absent"]
        size = {"missed": 0, "spurious": 1, "found": 2}
        return sorted(present, key=lambda s: (size[s.status], s.dice or 0.0, -s.false_negative - s.false_positive))

    def measures(self) -> dict[str, float]:
        """The overall numbers that exist, by name, for a report.

        Examples
        --------
        >>> Evaluation((Score("b", "lesion", "missed", 0, 0, 9),)).measures()
        {'Dice, all': 0.0, 'Dice, pooled': 0.0, 'missed structures': 1.0, 'spurious structures': 0.0}
        """
        total = self.overall
        named = {
            "Dice, all": total.dice_all,
            "Dice, found": total.dice,
            "Dice, pooled": total.dice_pooled,
            f"HD95, found ({self.unit})": total.hd95,
            "missed structures": float(total.missed),
            "spurious structures": float(total.spurious),
        }
        return {name: value for name, value in named.items() if value is not None}

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and cells of the table: one row per class, and one for all if there are several."""
        head = ["structure", "in reference", "found", "missed", "spurious", "Dice, found", "Jaccard, found"]
        head += [f"HD95, found ({self.unit})", f"ASSD, found ({self.unit})", "Dice, all", "Dice, pooled"]
        summaries = self.structures
        if len(summaries) != 1:
            summaries.append(self.overall)
        cells = []
        for s in summaries:
            spread = f" ± {s.dice_sd:.3f}" if s.dice_sd is not None else ""
            cells.append(
                [
                    *(s.structure, str(s.references), str(s.found), str(s.missed), str(s.spurious)),
                    *(_shown(s.dice) + spread, _shown(s.jaccard), _shown(s.hd95, 2), _shown(s.assd, 2)),
                    *(_shown(s.dice_all), _shown(s.dice_pooled)),
                ]
            )
        return head, cells

    def lines(self) -> list[str]:
        """The table as plain text, and the worst of what was missed or made up.

        Examples
        --------
        >>> result = Evaluation((Score("b", "lesion", "missed", 0, 0, 9),))
        >>> result.lines()[0].split(), result.lines()[-1]
        (['structure', 'lesion'], 'missed: lesion in b')
        """
        head, rows = self.rows()
        if len(rows) <= 4:  # few structures: one column each, so that nothing is squeezed
            head, *rows = [list(column) for column in zip(head, *rows, strict=True)]
        wrong = [score for score in self.worst if score.status != "found"]
        told = [self.about_missing] * bool(self.missing)
        lines = [*aligned(head, rows), *told, *(f"{s.status}: {s.structure} in {s.case}" for s in wrong[:WRONG])]
        return lines + ([f"and {len(wrong) - WRONG} more missed or spurious"] if len(wrong) > WRONG else [])

    @property
    def about_missing(self) -> str:
        """A sentence about the cases without a prediction; empty where there is none."""
        if not self.missing:
            return ""
        more = f" and {len(self.missing) - 5} more" if len(self.missing) > 5 else ""
        names = ", ".join(self.missing[:5])
        return f"{len(self.missing)} of {self.cases} cases have no prediction and count as missed: {names}{more}"

    def __str__(self) -> str:
        return "\n".join([*aligned(*self.rows()), *[self.about_missing] * bool(self.missing)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the policy in words, the summaries, and every score; what does not exist is null."""
        return {
            "schema_version": 1,
            "policy": POLICY,
            "unit": self.unit,
            "cases": self.cases,
            "missing": list(self.missing),
            "overall": asdict(self.overall),
            "structures": [asdict(summary) for summary in self.structures],
            "scores": [asdict(score) for score in self.scores],
        }

    def to_json(self) -> str:
        """The same as indented JSON, without NaN."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """One line per case and class; empty cells where a number does not exist."""
        names = [field.name for field in fields(Score)]
        lines = [",".join(names)]
        for score in self.scores:
            values = asdict(score)
            lines.append(",".join("" if values[name] is None else _cell(values[name]) for name in names))
        return "\n".join(lines) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Read :meth:`to_dict` back."""
        return cls(
            tuple(Score(**score) for score in values["scores"]), values["unit"], tuple(values.get("missing", ()))
        )


def _cell(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


def _shown(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _summary(name: str, scores: Sequence[Score]) -> Summary:
    found = [score for score in scores if score.status == "found"]
    count = {status: sum(s.status == status for s in scores) for status in ("missed", "spurious", "absent")}
    dices = [score.dice for score in found if score.dice is not None]
    present = len(found) + count["missed"] + count["spurious"]
    hits = 2 * sum(score.true_positive for score in scores)
    wrong = sum(score.false_positive + score.false_negative for score in scores)
    return Summary(
        structure=name,
        references=len(found) + count["missed"],
        found=len(found),
        missed=count["missed"],
        spurious=count["spurious"],
        absent=count["absent"],
        dice=_mean(dices),
        dice_sd=float(np.std(dices, ddof=1)) if len(dices) > 1 else None,
        jaccard=_mean([score.jaccard for score in found]),
        hd95=_mean([score.hd95 for score in found]),
        assd=_mean([score.assd for score in found]),
        dice_all=sum(dices) / present if present else None,
        dice_pooled=hits / (hits + wrong) if hits + wrong else None,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
