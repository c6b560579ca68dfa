"""What the training of a classifier returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from fewer.core.display import Fact, Shown
from fewer.tasks.classify.evaluation import Evaluation
from fewer.tasks.classify.settings import TrainSettings

__all__ = ["TrainedRun"]


@dataclass(eq=False, repr=False)
class TrainedRun(Shown):
    """A finished training.

    Attributes
    ----------
    model
        In evaluation mode, from [N, 3, H, W] to scores [N, classes].
    network
        Its name.
    classes
        Of its outputs.
    evaluation
        Scores of the images that judged; None without any.
    history
        ``step``, ``loss`` and ``score`` (accuracy) at every validation.
    best_step
        Step whose weights were kept.
    timings
        Seconds of each part.
    folder
        Run folder, or None.
    units
        Layers that are stored in fewer bits or with a mask.
    few_bits
        Of a training in few bits: bits by layer, errors of gradients over time, accuracy as trained and as stored.
    step_seconds
        Seconds per step, validations included.
    skipped
        Images that were to train and cannot be read, and why.
    """

    model: nn.Module
    network: str
    classes: tuple[str, ...]
    evaluation: Evaluation | None
    history: list[dict[str, float]]
    best_step: int
    settings: TrainSettings
    timings: dict[str, float] = field(default_factory=dict)
    folder: Path | None = None
    units: list[dict[str, Any]] = field(default_factory=list)
    few_bits: dict[str, Any] = field(default_factory=dict)
    step_seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)

    def shown(self) -> tuple[str, list[Fact]]:
        """The scores, and where the run is."""
        scores = [(f"score {number}", line) for number, line in enumerate(self.lines(), 1)]
        return f"Trained {self.network}", [
            *scores,
            ("best step", str(self.best_step)),
            ("saved", str(self.folder or "")),
        ]

    def lines(self) -> list[str]:
        """The scores of the images that judged."""
        told = self.evaluation.lines() if self.evaluation else ["trained on all images; none was kept apart to judge"]
        return [*told, *self.unread()]

    def unread(self) -> list[str]:
        """A sentence about images that could not be read, where there are such."""
        if not self.skipped:
            return []
        name, why = next(iter(self.skipped.items()))
        return [f"{len(self.skipped)} images could not be read and did not train, such as {name}: {why}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = self.evaluation.to_dict() if self.evaluation else None
        told = {"best_step": self.best_step, "history": self.history, "evaluation": found}
        told |= {"skipped": self.skipped} if self.skipped else {}
        return told | ({"few_bits": self.few_bits} if self.few_bits else {})
