"""A training that is under way, as one safetensors file: whole or not there, and never a pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes
from fewer.training.average import Average
from fewer.training.constrained import Constrained

__all__ = ["Lesson", "restore", "store"]


_FACTS = (
    "step",
    "seconds",
    "began",
    "fitted",
    "history",
    "best_error",
    "best_step",
)  # of a lesson; the rest is tensors


@dataclass
class Lesson:
    """How far a training has come.

    Attributes
    ----------
    step
        Steps finished.
    seconds
        Time spent so far, in all sittings.
    began
        Of these seconds, what had passed before the first step.
    fitted
        Images of a least-squares fit that was kept before the first step.
    history
        One entry per evaluation: ``step``, ``seconds``, ``error``; the first is that of the start.
    best, best_error, best_step
        State of the best model so far; the start counts.
    """

    step: int = 0
    seconds: float = 0.0
    began: float = 0.0
    fitted: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_error: float = float("inf")
    best_step: int = 0

    @property
    def improved(self) -> bool:
        """Whether any state was better than the first one."""
        return bool(self.history) and self.best_error < self.history[0]["error"]

    def note(self, error: float, model: nn.Module) -> bool:
        """Write an evaluation down, and keep the model if there was none better."""
        self.history.append({"step": float(self.step), "seconds": self.seconds, "error": error})
        if not error < self.best_error:
            return False
        self.best_error, self.best_step = error, self.step
        self.best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        return True


def store(
    path: Path, key: str, lesson: Lesson, weights: Constrained, average: Average, optimiser: torch.optim.Optimizer
) -> None:
    """Write everything that going on needs.

    Raises
    ------
    FewerError
        When the disk is full or may not be written to.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter, mean in zip(weights.names(), weights.parameters(), average.values, strict=True):
        tensors |= {f"latent.{name}": parameter, f"average.{name}": mean}
        for part, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{part}.{name}"] = torch.as_tensor(value)
    tensors |= {f"best.{name}": value for name, value in lesson.best.items()}
    facts: dict[str, Any] = {"key": key} | {name: getattr(lesson, name) for name in _FACTS}
    whole = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    atomic_write_bytes(path, save(whole, {"facts": json.dumps(facts)}))


@torch.no_grad()
def restore(path: Path, key: str, weights: Constrained, average: Average, optimiser: torch.optim.Optimizer) -> Lesson:
    """Put a training back to where :func:`store` left it.

    Raises
    ------
    FewerError
        When the file is damaged or belongs to another training.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FewerError(f"the checkpoint {path} cannot be read ({error}); start anew with --overwrite") from None
    if facts["key"] != key:
        raise FewerError(
            "the interrupted recovery had another model, other images or other settings; repeat its own command with "
            "--resume, or start anew with --overwrite"
        )
    for name, parameter, mean in zip(weights.names(), weights.parameters(), average.values, strict=True):
        parameter.copy_(tensors[f"latent.{name}"])
        mean.copy_(tensors[f"average.{name}"])
        found = {part: tensors.get(f"optimiser.{part}.{name}") for part in ("step", "exp_avg", "exp_avg_sq")}
        if found["step"] is not None:
            optimiser.state[parameter] = found
    weights.install()
    best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
    return Lesson(**{name: facts[name] for name in _FACTS}, best=best)
