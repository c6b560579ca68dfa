"""What every training can be told, whatever its task; the settings of a task extend it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fewer.core.strict import StrictSettings

__all__ = ["LoopSettings"]


class LoopSettings(StrictSettings):
    """Settings of the training loop.

    Examples
    --------
    >>> LoopSettings(steps=10).learning_rate
    0.001
    """

    batch: int = Field(default=4, ge=1, description="Samples per step.")
    steps: int = Field(default=500, ge=1, description="Steps of the training.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Rate at the first step; it falls to 0.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Decay of weights per step, in units of the rate.")
    optimiser: Literal["adamw", "sgd"] = Field(default="adamw", description="adamw, or sgd (Nesterov, momentum 0.99).")
    every: int = Field(
        default=50, ge=1, description="Steps between validations, each of which leaves a point to resume from."
    )
    precision: Literal["no", "bf16", "fp16"] = Field(default="no", description="Mixed precision of the products.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="cpu", description="Where to train.")
    seed: int = Field(default=0, ge=0, description="Seed of every random choice.")
