"""One round of a selection: what is known of the pool goes in, the plan and the chosen images come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.core.progress import Progress
from fewer.data.decode import read_image
from fewer.selection.embed import Embedded
from fewer.selection.labels import Returned
from fewer.selection.methods import choose
from fewer.selection.plan import Asked, QueuePlan, Round, Skipped
from fewer.selection.pool import Pool, Selection
from fewer.selection.predictions import read_predictions
from fewer.selection.uncertainty import probe_predictions

__all__ = ["Known", "Wanted"]

_LARGE = 200_000  # images from which on the built-in probe has fewer members


@dataclass(frozen=True)
class Wanted:
    """What a round is to choose, and how."""

    method: str
    budget: Budget
    seed: int

    def count(self, images: int, skipped: Sequence[Skipped]) -> int:
        """Images that the budget allows; where that is more than there are, the files that were skipped are named.

        Raises
        ------
        FewerError
            When there are not so many images.
        """
        try:
            return self.budget.count(images)
        except FewerError as error:
            if not skipped:
                raise
            told = ", ".join(f"{one.name} ({one.reason})" for one in skipped[:3])
            more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
            raise FewerError(f"{error}; left out are {told}{more}") from None


@dataclass(frozen=True, eq=False)
class Known:
    """What a round knows: the images and their vectors, and what earlier rounds and annotators said.

    Attributes
    ----------
    root
        Folder of the pool.
    features
        What the vectors come from, in words.
    names
        File of every row.
    gone
        Rows whose file is not there any more.
    vectors
        Of every row.
    corrupted
        Makes the vectors of corrupted images; None where the vectors come from a file.
    before
        The queue so far.
    returned
        Labels that came back.
    """

    root: Path
    features: str
    names: list[str]
    gone: frozenset[int]
    vectors: Embedded
    corrupted: Callable[[], np.ndarray] | None = None
    before: QueuePlan | None = None
    returned: Returned | None = None

    @property
    def labelled(self) -> dict[str, str | None]:
        """Class of every labelled image; None where the label is no class."""
        return {**(self.before.labelled if self.before else {}), **(self.returned.labels if self.returned else {})}

    @property
    def rows(self) -> dict[str, int]:
        """Row of every file."""
        return {name: row for row, name in enumerate(self.names)}

    def pool(self, predictions: str | Path | None, seed: int) -> Pool:
        """The images as a method sees them, with predictions from a file, or of a small probe where there are none."""
        rows = self.rows
        asked = {*self.labelled, *(a.name for a in (self.before.queue if self.before else []))}
        taken = np.array(sorted(rows[name] for name in asked if name in rows), np.int64)
        excluded = np.array(sorted({*self.vectors.skipped, *self.gone}), np.int64)
        facts: dict[str, Any] = {}
        if predictions is not None:
            read = read_predictions(predictions, self.names)
            facts = {"uncertainty": read.uncertainty, "disagreement": read.disagreement}
            facts |= {"predictions": read.probabilities, "foreground": read.foreground}
        else:
            facts = {"foreground": self.vectors.foreground, "predictions": self._probe(set(excluded.tolist()), seed)}
        return Pool(self.vectors.vectors, labelled=taken, excluded=excluded, corrupted=self.corrupted, **facts)

    def choose(
        self, wanted: Wanted, predictions: str | Path | None, progress: Progress
    ) -> tuple[QueuePlan, list[Asked]]:
        """Choose; the queue with this round and its images, and these images alone.

        The seconds of the round are for the caller to fill in, who knows when it began.
        """
        pool, skipped = self.pool(predictions, wanted.seed), dict(self.vectors.skipped)
        with progress.stage("choose", None) as stage:
            selection = _choose(pool, wanted, self._told(skipped))
            # vectors of a file or an earlier round say nothing about the images now: the chosen ones are looked at
            while broken := _unreadable(selection.rows, self.names, self.root):
                skipped |= broken
                pool = replace(pool, excluded=np.union1d(pool.excluded, list(broken)))
                selection = _choose(pool, wanted, self._told(skipped))
            stage.advance(note=wanted.method)
        before = self.before
        this = Round(
            round=len(before.rounds) + 1 if before else 1,
            method=wanted.method,
            budget=str(wanted.budget),
            seed=wanted.seed,
            chosen=len(selection.rows),
            pool=len(pool.candidates()),
            seconds=0.0,
        )
        chosen = _asked(selection, self.names, this.round)
        plan = QueuePlan(
            pool=str(self.root),
            features=self.features,
            images=len(self.names) - len(self.gone),
            skipped=self._told(skipped),
            rounds=[*(before.rounds if before else []), this],
            queue=[*(before.queue if before else []), *chosen],
            labelled=self.labelled,
        )
        return plan, chosen

    def _told(self, skipped: dict[int, str]) -> list[Skipped]:
        return [Skipped(name=self.names[row], reason=reason) for row, reason in sorted(skipped.items())]

    def _probe(self, excluded: set[int], seed: int) -> np.ndarray | None:
        """Predictions of a small probe, where the labels so far have classes that it can be trained on."""
        rows = self.rows
        known = [(rows[name], label) for name, label in self.labelled.items() if label is not None and name in rows]
        known = sorted((row, label) for row, label in known if row not in excluded)
        if len({label for _, label in known}) < 2:
            return None
        at, classes = np.array([row for row, _ in known], np.int64), np.array([label for _, label in known])
        vectors = self.vectors.vectors
        return probe_predictions(vectors, at, classes, members=8 if len(vectors) < _LARGE else 3, seed=seed)


def _choose(pool: Pool, wanted: Wanted, skipped: Sequence[Skipped]) -> Selection:
    return choose(pool, wanted.method, wanted.count(len(pool.candidates()), skipped), wanted.seed)


def _unreadable(rows: np.ndarray, names: list[str], root: Path) -> dict[int, str]:
    """Row and reason of every image that cannot be decoded."""
    broken = {}
    for row in rows.tolist():
        try:
            read_image(root / names[row])
        except Exception as error:  # a broken file can make a decoder raise anything
            broken[row] = str(error) or type(error).__name__
    return broken


def _asked(selection: Selection, names: list[str], number: int) -> list[Asked]:
    columns = zip(selection.rows, selection.groups, selection.stands_for, selection.scores, selection.why, strict=True)
    return [
        Asked(
            round=number,
            rank=rank,
            name=names[row],
            group=int(group),
            stands_for=float(round(stands, 2)),
            score=float(score),
            why=why,
        )
        for rank, (row, group, stands, score, why) in enumerate(columns, 1)
    ]
