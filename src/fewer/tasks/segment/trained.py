"""What a segmentation training returns and plans: the finished run, and the plan of one that has not begun."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from fewer.core.display import Fact, Shown
from fewer.models.spec import LoadedModel
from fewer.tasks.segment.dataset import SegmentData, Split
from fewer.tasks.segment.evaluation import Evaluation
from fewer.tasks.segment.memory import Memory
from fewer.tasks.segment.preparation import Preparation
from fewer.tasks.segment.settings import TrainSettings

__all__ = ["TrainedRun", "TrainingPlan"]


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """What a training would do, before it does it.

    Attributes
    ----------
    data, split
        Cases.
    preparation
        Fitted to the training cases.
    network
        With random weights.
    memory
        Estimate for one process.
    sentence
        What it needs and what there is.
    subjects
        What was taken as the subject of an image, in words; empty where each image stands for itself.
    """

    data: SegmentData
    split: Split
    preparation: Preparation
    network: LoadedModel
    memory: Memory
    sentence: str
    subjects: str = ""

    def lines(self) -> list[str]:
        """The plan in words."""
        p, parameters = self.preparation, sum(w.numel() for w in self.network.model.parameters())
        spacing = "as it is" if p.spacing is None else " x ".join(f"{step:g}" for step in p.spacing) + " mm"
        axes = f", axes {p.axes}" if p.axes else ""
        return [
            f"{len(self.split.train)} cases train, {len(self.split.val)} judge; classes {', '.join(p.classes)}",
            *filter(None, [self.subjects]),
            f"{p.dims}-D, channels {p.channels}, normalise {p.normalise}, spacing {spacing}{axes}",
            f"network {self.network.name}, {parameters / 1e6:.3g} M parameters, patch {' x '.join(map(str, p.patch))}",
            self.sentence,
        ]


@dataclass(eq=False, repr=False)
class TrainedRun(Shown):
    """What :func:`train` returns.

    Attributes
    ----------
    model
        In evaluation mode, from ``(batch, channels, *space)`` to ``(batch, classes, *space)``.
    preparation
        How an image becomes its input.
    evaluation
        Scores of the validation cases on their own voxels; None if there are none.
    history
        ``step``, ``loss`` and ``score`` (pooled Dice of the validation cases) at every validation.
    warm_up
        ``step`` and ``loss`` of the self-supervised training before, if there was one.
    timings
        Seconds of each part.
    folder
        Run folder, or None.
    """

    model: nn.Module
    preparation: Preparation
    evaluation: Evaluation | None
    history: list[dict[str, float]]
    best_step: int
    settings: TrainSettings
    split: Split
    warm_up: list[dict[str, float]] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    folder: Path | None = None

    def shown(self) -> tuple[str, list[Fact]]:
        """The scores, and where the run is."""
        scores = [(f"score {number}", line) for number, line in enumerate(self.lines(), 1)]
        return "Trained a segmentation", [
            *scores,
            ("best step", str(self.best_step)),
            ("saved", str(self.folder or "")),
        ]

    def lines(self) -> list[str]:
        """The scores of the cases that judged."""
        return self.evaluation.lines() if self.evaluation else ["trained on all cases; none was kept apart to judge"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = self.evaluation.to_dict() if self.evaluation else None
        return {"best_step": self.best_step, "history": self.history, "evaluation": found}
