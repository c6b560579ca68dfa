"""The result of an evaluation of a classifier, as lines, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewer.core.display import Told, skipped_lines
from fewer.reports.numbers import aligned
from fewer.tasks.classify.metrics import bootstrap, calibration_error, confusion_matrix, doubt, wilson

__all__ = ["ClassScore", "Evaluation"]

POLICY = (
    "Shares have Wilson's 95 % interval, the calibration error (15 bins of confidence) that of 500 bootstrap samples "
    "of the images. Balanced accuracy is the mean over classes."
)
SHOWN = 20


@dataclass(frozen=True)
class ClassScore:
    """One class: images, those whose first guess was right, and how often it was guessed in vain."""

    name: str
    images: int
    right: int
    wrongly: int

    @property
    def recall(self) -> float | None:
        """Share of its images that were found; None without any."""
        return self.right / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        """Share of the guesses of this class that were right; None without any."""
        guessed = self.right + self.wrongly
        return self.right / guessed if guessed else None


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Told):
    """What a classifier said of labelled images.

    Attributes
    ----------
    names
        Of the images.
    classes
        Names of the outputs.
    labels, guesses, second
        [N] outputs: the right one, the first guess; ``rank`` is the place of the right one, from 0.
    confidence
        [N] probability of the first guess.
    how
        How classes and outputs were matched.
    skipped
        Images that could not be read, and why.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    guesses: np.ndarray
    rank: np.ndarray
    confidence: np.ndarray
    how: str = ""
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def top1(self) -> float:
        """Share of images whose first guess is right."""
        return float((self.rank == 0).mean())

    @property
    def top5(self) -> float:
        """Share of images whose class is among the first five guesses."""
        return float((self.rank < 5).mean())

    @property
    def balanced(self) -> float:
        """Mean of the recall of the classes that have images."""
        found = [score.recall for score in self.per_class() if score.recall is not None]
        return float(np.mean(found))

    @property
    def calibration(self) -> float:
        """Expected calibration error."""
        return calibration_error(self._rows())

    @property
    def confusion(self) -> np.ndarray:
        """Counts [label, guess] of the outputs."""
        return confusion_matrix(self.labels, self.guesses, len(self.classes))

    @property
    def doubt(self) -> str:
        """A sentence if the classes seem to be mapped wrongly."""
        return doubt(self.confusion, self.classes)

    def _rows(self) -> np.ndarray:
        return np.stack([self.confidence, (self.rank == 0).astype(float)], 1)

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the numbers of :meth:`measures`."""
        n = len(self)
        found = {"top-1 accuracy": wilson((self.rank == 0).sum(), n)}
        if len(self.classes) > 5:
            found["top-5 accuracy"] = wilson((self.rank < 5).sum(), n)
        return found | {"calibration error": bootstrap(self._rows(), calibration_error)}

    def measures(self) -> dict[str, float]:
        """The numbers that a report shows before and after."""
        found = {"top-1 accuracy": self.top1}
        if len(self.classes) > 5:
            found["top-5 accuracy"] = self.top5
        return found | {"calibration error": self.calibration}

    def per_class(self) -> list[ClassScore]:
        """A row for every class that has images or was guessed."""
        right = np.bincount(self.labels[self.rank == 0], minlength=len(self.classes))
        images = np.bincount(self.labels, minlength=len(self.classes))
        guessed = np.bincount(self.guesses, minlength=len(self.classes))
        return [
            ClassScore(name, int(images[i]), int(right[i]), int(guessed[i] - right[i]))
            for i, name in enumerate(self.classes)
            if images[i] or guessed[i]
        ]

    def confused(self) -> list[tuple[str, str, int]]:
        """Pairs (class, guess, images) that were confused most."""
        counts = self.confusion
        np.fill_diagonal(counts, 0)
        order = np.argsort(-counts, axis=None, kind="stable")[:SHOWN]
        pairs = [divmod(int(cell), len(self.classes)) for cell in order]
        return [(self.classes[a], self.classes[b], int(counts[a, b])) for a, b in pairs if counts[a, b]]

    def worst(self) -> np.ndarray:
        """Rows of the wrong guesses, the surest first."""
        wrong = np.flatnonzero(self.rank > 0)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")]

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and cells of the table of numbers with their intervals."""
        ends = self.intervals()
        cells = []
        for name, value in self.measures().items():
            low, high = ends[name]
            cells.append([name, f"{value:.4f}", f"{low:.4f} to {high:.4f}"])
        cells.append(["balanced accuracy", f"{self.balanced:.4f}", ""])
        return ["", "value", "95 % interval"], cells

    def lines(self) -> list[str]:
        """The verdict, the numbers, the classes (the worst of many), and what was skipped."""
        told = [f"{len(self)} images, {len(self.classes)} classes, matched {self.how}"]
        if self.doubt:
            told.append(f"check the classes: {self.doubt}")
        told += aligned(*self.rows())
        scores = sorted(self.per_class(), key=lambda s: (s.recall if s.recall is not None else 2.0, -s.images))
        shown = [s for s in scores if s.images][:SHOWN]
        cells = [[s.name, str(s.images), _shown(s.recall), _shown(s.precision)] for s in shown]
        told += ["", *aligned(["class, the worst first", "images", "recall", "precision"], cells)]
        return told + skipped_lines(self.skipped)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        ends = self.intervals()
        return {
            "schema_version": 1,
            "policy": POLICY,
            "images": len(self),
            "matched": self.how,
            "doubt": self.doubt,
            "measures": {name: {"value": v, "interval": list(ends[name])} for name, v in self.measures().items()},
            "balanced_accuracy": self.balanced,
            "classes": [
                {"name": s.name, "images": s.images, "recall": s.recall, "precision": s.precision}
                for s in self.per_class()
            ],
            "confused": [{"class": a, "guess": b, "images": n} for a, b, n in self.confused()],
            "skipped": [{"file": name, "reason": reason} for name, reason in self.skipped],
        }

    def to_json(self) -> str:
        """Indented JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def to_csv(self) -> str:
        """One line per image."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["image", "class", "guess", "confidence", "rank"])
        for i, name in enumerate(self.names):
            label, guess = self.classes[self.labels[i]], self.classes[self.guesses[i]]
            table.writerow([name, label, guess, f"{self.confidence[i]:.4f}", int(self.rank[i])])
        return text.getvalue()


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
