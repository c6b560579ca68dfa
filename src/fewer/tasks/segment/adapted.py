"""What an adaptation plans and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from fewer.adaptation.ours import member_steps
from fewer.adaptation.problem import Adapted
from fewer.adaptation.settings import without_effect
from fewer.core.display import Told
from fewer.models.spec import LoadedModel
from fewer.tasks.segment.adapt_data import Domains
from fewer.tasks.segment.adapt_members import member_rows
from fewer.tasks.segment.adapt_settings import AdaptSettings
from fewer.tasks.segment.evaluation import Evaluation

__all__ = ["AdaptPlan", "AdaptedRun"]


@dataclass(frozen=True, eq=False)
class AdaptPlan:
    """What an adaptation would do, before it does it."""

    domains: Domains
    network: LoadedModel
    settings: AdaptSettings
    sentence: str

    def lines(self) -> list[str]:
        """The plan in words."""
        d, p = self.domains, self.domains.preparation
        spacing = "as it is" if p.spacing is None else " x ".join(f"{step:g}" for step in p.spacing) + " mm"
        axes = f", axes {p.axes}" if p.axes else ""
        off = f", without {', '.join(self.settings.without)}" if self.settings.without else ""
        return [
            f"method {self.settings.method}{off}",
            f"{len(d.source)} labelled source scans train, {len(d.held)} judge, {len(d.unlabelled)} without masks; "
            f"{len(d.target)} target scans without masks; classes {', '.join(p.classes)}",
            f"{p.dims}-D, channels {p.channels}, normalise {p.normalise}, spacing {spacing}{axes}",
            f"network {self.network.name}, patch {' x '.join(map(str, p.patch))}",
            *self._stages(),
            "the weights are chosen without target labels: held-out source Dice and agreement on the target",
            self.sentence,
            *d.notes,
            *(
                f"the method {self.settings.method} has no {name}: switching it off changes nothing"
                for name in without_effect(self.settings)
            ),
        ]

    def _stages(self) -> list[str]:
        steps = member_steps(self.settings) if self.settings.method == "ours" else {}
        if not steps:
            return []
        told = ", ".join(f"{name} {count}" for name, count in steps.items())
        return [f"several networks are trained, and the most trusted one is kept; steps of the stages: {told}"]


@dataclass(eq=False, repr=False)
class AdaptedRun(Told):
    """What :func:`fewer.tasks.segment.adapt.adapt` returns.

    Attributes
    ----------
    model
        In evaluation mode, from ``(batch, channels, *space)`` to ``(batch, classes, *space)``.
    adapted
        Stages, translated images and checks of the method.
    evaluation
        Scores on the labelled test folder, or None.
    notes
        What was said on the way.
    members
        Scores on the test folder of every network among which was chosen, by name; empty without such a folder.
    """

    model: nn.Module
    plan: AdaptPlan
    adapted: Adapted
    evaluation: Evaluation | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    folder: Path | None = None
    members: dict[str, Evaluation] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Scores where there are some."""
        found = [f"{name}: step {stage.best_step} was chosen" for name, stage in self.adapted.stages.items()]
        if self.evaluation is None:
            return [*found, "no test folder was given, so nothing is known of how good it is: fewer eval RUN LABELLED"]
        return [*found, *self.evaluation.lines()]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        stages = {
            name: {"best_step": s.best_step, "history": list(s.history)} for name, s in self.adapted.stages.items()
        }
        found = self.evaluation.to_dict() if self.evaluation else None
        return {
            "method": self.plan.settings.method,
            "stages": stages,
            "members": member_rows(self),
            "checks": self.adapted.checks,
            "notes": self.notes,
            "evaluation": found,
        }
