"""What a training of a detector plans and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewer.core.display import Told
from fewer.tasks.detect3d.dataset import DetectionData
from fewer.tasks.detect3d.evaluation import DetectionScores
from fewer.tasks.detect3d.networks import Detector, DetectorConfig, build_network
from fewer.tasks.detect3d.settings import TrainSettings
from fewer.training.history import steps_done

__all__ = ["DetectorPlan", "TrainedDetector"]


@dataclass(frozen=True, eq=False)
class DetectorPlan:
    """What a training would do.

    Attributes
    ----------
    data
        Scans.
    train, val
        Names of those that train and that judge.
    config
        Of the network.
    within
        Share of the labelled objects that stand in the network's field, as far as they were looked at.
    init
        Where its weights come from; None where they are random.
    lacking
        Classes without an object in the labels that were looked at.
    """

    data: DetectionData
    train: tuple[str, ...]
    val: tuple[str, ...]
    config: DetectorConfig
    within: float = 1.0
    init: str | None = None
    lacking: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """In words."""
        count = sum(p.numel() for p in build_network(self.config).parameters())
        x, y, z = self.config.grid
        low, high = self.config.reach[:3], self.config.reach[3:]
        sides = ", ".join(f"{n} {a:g} to {b:g} m" for n, a, b in zip("xyz", low, high, strict=True))
        begun = [] if self.init is None else [f"starts from the weights of {self.init}"]
        if self.lacking:
            begun.append(f"no {' and no '.join(self.lacking)} in the labels that were looked at: that cannot be learnt")
        if self.data.brightest != 1:
            begun.append(f"intensities from 0 to {self.data.brightest:g} are brought to 0 to 1")
        return [
            f"{len(self.train)} scans train, {len(self.val)} judge; classes {', '.join(self.config.classes)}",
            f"{self.config.network}, {count / 1e6:.3g} M parameters, grid {x} x {y} x {z} of "
            + " x ".join(f"{v:g}" for v in self.config.voxel)
            + " m",
            f"it looks at {sides}: {100 * self.within:.0f} % of the labelled objects stand there; what is outside is "
            "neither learnt nor found (--reach changes it)",
            *begun,
        ]


@dataclass(eq=False, repr=False)
class TrainedDetector(Told):
    """What :func:`train` returns.

    Attributes
    ----------
    model
        In evaluation mode, with the weights of the best validation.
    plan, settings
        What was asked for.
    scores
        On the scans that judge; None if there are none.
    history
        One entry per validation.
    seconds
        Of the training.
    folder
        Run folder, or None.
    """

    model: Detector
    plan: DetectorPlan
    settings: TrainSettings
    scores: DetectionScores | None
    history: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    folder: Path | None = None

    def lines(self) -> list[str]:
        """The scores, and where the run is."""
        kept = f"best at step {self.best_step}" if self.plan.val else "the last state is kept"
        told = [f"trained {self.plan.config.network} for {steps_done(self.history)} steps; {kept}"]
        told += self.scores.lines() if self.scores is not None else ["no scan was kept apart to judge"]
        return told + ([f"run folder {self.folder}"] if self.folder else [])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        scores = None if self.scores is None else self.scores.to_dict()
        return {"folder": str(self.folder) if self.folder else None, "best_step": self.best_step, "scores": scores}
