"""What the training of a classifier returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from fewer.tasks.classify.evaluation import Evaluation
from fewer.tasks.classify.settings import TrainSettings

__all__ = ["TrainedRun"]


@dataclass(eq=False)
class TrainedRun:
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

    def lines(self) -> list[str]:
        """The scores of the images that judged."""
        return self.evaluation.lines() if self.evaluation else ["trained on all images; none was kept apart to judge"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = self.evaluation.to_dict() if self.evaluation else None
        return {"best_step": self.best_step, "history": self.history, "evaluation": found}
