"""What a training of a gait network plans and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewer.core.display import Told
from fewer.tasks.gait.data.dataset import GaitData
from fewer.tasks.gait.networks import GaitNetwork, NetworkConfig, build_network
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.gait.protocols.scores import Scores
from fewer.tasks.gait.settings import TrainSettings
from fewer.tasks.gait.tpa import CHOICES
from fewer.training.history import steps_done

__all__ = ["GaitPlan", "TrainedGait"]


@dataclass(frozen=True, eq=False)
class GaitPlan:
    """What a training would do.

    Attributes
    ----------
    data
        Sequences.
    train, val, test
        Those that train, that choose the best state, and that judge at the end; of different persons.
    config
        Of the network.
    note
        Why nobody chooses the best state, where that is so.
    """

    data: GaitData
    train: list[Walk]
    val: list[Walk]
    test: list[Walk]
    config: NetworkConfig
    note: str = ""

    @property
    def people(self) -> list[str]:
        """Persons that train, in the order of their class numbers."""
        return sorted({walk.person for walk in self.train})

    def lines(self) -> list[str]:
        """In words."""
        persons = [len({w.person for w in walks}) for walks in (self.train, self.val, self.test)]
        count = sum(p.numel() for p in build_network(self.config).parameters())
        tpa = next((f"--tpa {name}" for name, own in CHOICES.items() if own == self.config.tpa), "TPA of its own kind")
        return [
            f"{persons[0]} persons train with {len(self.train)} sequences, {persons[1]} choose the best state, "
            f"{persons[2]} judge",
            *([self.note] if self.note else []),
            f"{self.config.network} ({self.config.size}), {count / 1e6:.3g} M parameters, {tpa}",
        ]


@dataclass(eq=False, repr=False)
class TrainedGait(Told):
    """What :func:`~fewer.tasks.gait.training.train` returns.

    Attributes
    ----------
    model
        In evaluation mode, with the weights of the best validation.
    plan, settings
        What was asked for.
    scores
        On persons that judge; None if there are none.
    history
        One entry per validation.
    folder
        Run folder, or None.
    """

    model: GaitNetwork
    plan: GaitPlan
    settings: TrainSettings
    scores: Scores | None
    history: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    folder: Path | None = None
    note: str = ""

    def lines(self) -> list[str]:
        """The scores, and where the run is."""
        kept = f"best at step {self.best_step}" if self.plan.val else "the last state is kept"
        told = [f"trained {self.plan.config.network} for {steps_done(self.history)} steps; {kept}"]
        told += self.scores.lines() if self.scores is not None else [self.note or "nobody was kept apart to judge"]
        return told + ([f"run folder {self.folder}"] if self.folder else [])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        scores = None if self.scores is None else self.scores.to_dict()
        return {"folder": str(self.folder) if self.folder else None, "best_step": self.best_step, "scores": scores}
