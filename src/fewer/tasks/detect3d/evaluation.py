"""The result of an evaluation: average precision by class and difficulty, and what is missed where."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fewer.core.display import Told, skipped_lines
from fewer.reports.numbers import aligned
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.metrics.bands import Band, count_bands
from fewer.tasks.detect3d.metrics.kitti_ap import DIFFICULTIES, has_pictures, kitti_ap, overlap_of
from fewer.tasks.detect3d.metrics.nuscenes_ap import nuscenes_scores
from fewer.tasks.detect3d.metrics.once_ap import once_ap

__all__ = ["DetectionScores", "score_detections"]

HEAD: tuple[str, ...] = ("class", "metric", "overlap", "difficulty", "R40", "R11", "objects")


@dataclass(frozen=True, repr=False)
class DetectionScores(Told):
    """Scores of a set of scans.

    Attributes
    ----------
    scans
        How many.
    rows
        One per class, metric (in space, from above) and difficulty: AP at 40 and 11 recalls in percent, the overlap
        that a match needs, and the objects that count.
    bands
        Found, missed and spurious by class and distance, at one confidence.
    other
        Scores of nuScenes (mAP, errors, NDS) and of ONCE (AP by class).
    score
        The confidence of ``bands``.
    note
        What was left out of the counts, if anything.
    """

    scans: int
    rows: tuple[dict[str, Any], ...]
    bands: dict[str, tuple[Band, ...]]
    other: dict[str, float]
    score: float
    note: str = ""
    skipped: tuple[tuple[str, str], ...] = field(default=())

    def ap(self, name: str, difficulty: str = "moderate", metric: str = "3d", recalls: str = "R40") -> float | None:
        """One AP in percent; None where no object counts."""
        for row in self.rows:
            if (row["class"], row["metric"], row["difficulty"]) == (name, metric, difficulty):
                return float(row[recalls]) if row["objects"] else None
        return None

    def measures(self) -> dict[str, float]:
        """A few numbers by name, as the engine shows them before and after; none where no object counts."""
        found: dict[str, float] = {}
        for name, bands in self.bands.items():
            value = self.ap(name)
            if value is None:
                continue
            found[f"AP {name}"] = value
            found[f"missed {name}"] = float(sum(band.missed for band in bands))
            found[f"spurious {name}"] = float(sum(band.spurious for band in bands))
        aps = [v for k, v in found.items() if k.startswith("AP ")]
        return {"mAP": float(np.mean(aps)), **found} if aps else {}

    def lines(self) -> list[str]:
        """Tables for a terminal."""
        table = [
            [
                str(r["class"]),
                r["metric"],
                f"{r['overlap']:g}",
                r["difficulty"],
                f"{r['R40']:.2f}",
                f"{r['R11']:.2f}",
                str(int(r["objects"])),
            ]
            for r in self.rows
        ]
        told = [f"{self.scans} scans; average precision in percent, by the rules of KITTI", *aligned(HEAD, table)]
        head, rows = ["class", "distance", "objects", "found", "missed", "spurious"], []
        for name, bands in self.bands.items():
            rows += [[name, b.name, str(b.objects), str(b.found), str(b.missed), str(b.spurious)] for b in bands]
        told += ["", f"at confidence {self.score:g}, matched at an overlap of 0.5 in space:", *aligned(head, rows)]
        told += ["", "  ".join(f"{name} {value:.3f}" for name, value in self.other.items())]
        told += [self.note] if self.note else []
        return told + skipped_lines(self.skipped)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        bands = {name: [band.to_dict() for band in bands] for name, bands in self.bands.items()}
        skipped = [list(one) for one in self.skipped]
        return {"scans": self.scans, "ap": list(self.rows), "bands": bands, "other": self.other} | {
            "score": self.score,
            "note": self.note,
            "skipped": skipped,
        }

    def to_json(self) -> str:
        """Indented JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """The table of average precision."""
        text = io.StringIO()
        writer = csv.DictWriter(text, HEAD, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def score_detections(
    truths: Sequence[Objects],
    found: Sequence[Objects],
    classes: Sequence[str],
    *,
    score: float = 0.3,
    reach: Sequence[float] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
) -> DetectionScores:
    """Score detections by every rule that is known here.

    Parameters
    ----------
    truths, found
        Of each scan; see :func:`~fewer.tasks.detect3d.metrics.kitti_ap.kitti_ap`.
    classes
        That are scored.
    score
        Confidence at which missed and spurious are counted.
    reach
        Only what lies in it counts.

    Examples
    --------
    >>> box = np.array([[10, 0, 0, 4, 2, 1.5, 0.0]])
    >>> truth, found = Objects(box, ("Car",)), Objects(box, ("Car",), np.array([0.9]))
    >>> scores = score_detections([truth] * 50, [found] * 50, ["Car"])
    >>> round(scores.measures()["AP Car"], 6)
    100.0
    """
    rows = []
    for name in classes:
        for metric in ("3d", "bev"):
            for difficulty in DIFFICULTIES:
                values = kitti_ap(truths, found, name, difficulty=difficulty, metric=metric, reach=reach)  # type: ignore[arg-type]
                facts = {"class": name, "metric": metric, "overlap": overlap_of(name), "difficulty": difficulty}
                rows.append({**facts, **values})
    real = [t.take(~np.isnan(t.boxes).any(1)) if len(t) else t for t in truths]
    if reach is not None:
        real = [_within(t, reach) for t in real]
        found = [_within(f, reach) for f in found]
    other = nuscenes_scores(real, found, classes)
    other = {f"nuScenes {name}": value for name, value in other.items()}
    other |= {f"ONCE AP {name}": once_ap(real, found, name)["overall"] for name in classes}
    bands = {name: tuple(count_bands(real, found, name, score=score)) for name in classes}
    notes = [] if reach is None else ["Objects outside the grid of the network do not count."]
    if not any(row["objects"] for row in rows):
        notes.append("No labelled object counts here, so that no average precision can be told.")
    elif not has_pictures(truths):
        notes.append("The labels have no boxes in an image, so that all difficulties are the same.")
    return DetectionScores(len(truths), tuple(rows), bands, other, score, " ".join(notes), tuple(skipped))


def _within(objects: Objects, reach: Sequence[float]) -> Objects:
    low, high = np.array(reach[:2]), np.array(reach[3:5])
    return objects.take(((objects.boxes[:, :2] >= low) & (objects.boxes[:, :2] < high)).all(1))
