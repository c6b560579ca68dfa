"""What a protocol gives back: a headline, numbers by name, and tables that a page can draw."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fewer.core.display import Told
from fewer.tasks.gait.protocols.records import Walk

__all__ = ["Match", "Scores", "ViewTable", "curve_of", "rank_measures"]


@dataclass(frozen=True)
class Match:
    """A probe and its nearest gallery sequence.

    Attributes
    ----------
    probe, found
        The sequences.
    distance
        Between them.
    """

    probe: Walk
    found: Walk
    distance: float

    @property
    def right(self) -> bool:
        """Whether it is the same person."""
        return self.probe.person == self.found.person


@dataclass(frozen=True, eq=False)
class ViewTable:
    """Rank-1 accuracy by probe view (rows) and gallery view (columns); NaN where nothing was compared.

    Attributes
    ----------
    condition
        Of the probes, such as ``nm``.
    probe_views, gallery_views
        Names of rows and columns.
    values
        Accuracies from 0 to 1.
    """

    condition: str
    probe_views: tuple[str, ...]
    gallery_views: tuple[str, ...]
    values: np.ndarray

    def by_view(self) -> np.ndarray:
        """Mean of every row over the views that differ from its own."""
        other = np.array([[p != g for g in self.gallery_views] for p in self.probe_views])
        kept = np.where(other, self.values, np.nan)
        some = np.isfinite(kept).any(1)
        means = np.full(len(self.probe_views), np.nan)
        means[some] = np.nanmean(kept[some], 1)
        return means

    def mean(self) -> float:
        """Mean of :meth:`by_view`, every probe view counting alike."""
        means = self.by_view()
        return float(np.nanmean(means)) if np.isfinite(means).any() else float("nan")


@dataclass(frozen=True, eq=False, repr=False)
class Scores(Told):
    """Result of a protocol.

    Attributes
    ----------
    protocol
        Its name, convention included.
    numbers
        By name, in percent; the first is the headline.
    tables
        Rank-1 by views.
    curve
        Accuracy at rank 1, 2, ...
    matches
        Nearest neighbours, wrong ones first.
    notes
        What was left out.
    """

    protocol: str
    numbers: dict[str, float]
    tables: Sequence[ViewTable] = ()
    curve: Sequence[float] = ()
    matches: Sequence[Match] = ()
    notes: Sequence[str] = field(default=())

    @property
    def headline(self) -> float:
        """The first number."""
        return next(iter(self.numbers.values()))

    def noting(self, skipped: Sequence[tuple[Walk, str]]) -> Scores:
        """The same, with a note about sequences that could not be used, and why."""
        if not skipped:
            return self
        walk, reason = skipped[0]
        many = f"{len(skipped)} sequences" if len(skipped) > 1 else "1 sequence"
        told = f"{many} could not be used, such as {walk}: {reason}"
        return replace(self, notes=[*self.notes, told])

    def lines(self) -> list[str]:
        """The numbers, then what was left out."""
        told = ", ".join(f"{name} {value:.1f}" for name, value in self.numbers.items())
        return [f"{self.protocol}: {told} (percent)", *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what cannot be told is None."""
        tables = [
            {
                "condition": table.condition,
                "probe_views": list(table.probe_views),
                "gallery_views": list(table.gallery_views),
                "rank1": [[_plain(v) for v in row] for row in table.values],
            }
            for table in self.tables
        ]
        return {
            "protocol": self.protocol,
            "numbers": {name: _plain(value) for name, value in self.numbers.items()},
            "tables": tables,
            "curve": [_plain(v) for v in self.curve],
            "wrong": [
                {"probe": str(m.probe), "found": str(m.found), "distance": round(m.distance, 5)}
                for m in self.matches
                if not m.right
            ],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """Indented JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Rank-1 by condition and views, a pair of views a row."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(["condition", "probe_view", "gallery_view", "rank1"])
        for table in self.tables:
            for i, probe in enumerate(table.probe_views):
                for j, gallery in enumerate(table.gallery_views):
                    if np.isfinite(table.values[i, j]):
                        rows.writerow([table.condition, probe, gallery, f"{table.values[i, j]:.6f}"])
        return out.getvalue()


def _plain(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def curve_of(ranks: Sequence[np.ndarray], length: int = 20) -> list[float]:
    """Share of probes whose first positive stands at rank 1, 2, ..., in percent.

    Examples
    --------
    >>> curve_of([np.array([1]), np.array([3])], 3)
    [50.0, 50.0, 100.0]
    """
    first = np.array([r[0] for r in ranks if len(r)])
    return [100.0 * float((first <= k).mean()) if len(first) else float("nan") for k in range(1, length + 1)]


def rank_measures(ranks: Sequence[np.ndarray], at: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Rank accuracies, mean average precision and mean inverse negative penalty, in percent.

    The inverse negative penalty of a probe is its number of positives over the rank of the last one (Ye et al., 2021).

    Examples
    --------
    >>> rank_measures([np.array([1, 4])], at=(1,))
    {'rank-1': 100.0, 'mAP': 75.0, 'mINP': 50.0}
    """
    some = [r for r in ranks if len(r)]
    if not some:
        return {**{f"rank-{k}": float("nan") for k in at}, "mAP": float("nan"), "mINP": float("nan")}
    found = {f"rank-{k}": 100.0 * float(np.mean([r[0] <= k for r in some])) for k in at}
    found["mAP"] = 100.0 * float(np.mean([np.mean(np.arange(1, len(r) + 1) / r) for r in some]))
    found["mINP"] = 100.0 * float(np.mean([len(r) / r[-1] for r in some]))
    return found
