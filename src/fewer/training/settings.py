"""What every training can be told, whatever its task; the settings of a task extend it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fewer.core.duration import Duration
from fewer.core.strict import StrictSettings

__all__ = ["LoopSettings"]


class LoopSettings(StrictSettings):
    """Settings of the training loop. A task adds its own fields, and may give these other defaults.

    Examples
    --------
    >>> LoopSettings(steps=10).learning_rate
    0.001
    """

    batch: int = Field(default=4, ge=1, description="Samples per step.")
    steps: int = Field(default=500, ge=1, description="Steps of the training.")
    time: Duration | None = Field(
        default=None, gt=0, description="Stop after so long instead of after steps: 90s, 10min or 1.5h."
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Rate at the first step, or after its warm-up.")
    rate_shape: Literal["polynomial", "cosine", "steps", "constant"] = Field(
        default="polynomial", description="How the rate falls: polynomial, cosine, steps or constant."
    )
    rate_warm_up: float = Field(default=0.0, ge=0, lt=1, description="Share of the training in which the rate rises.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Decay of weights per step, in units of the rate.")
    optimiser: Literal["adamw", "adam", "sgd", "relative-adam"] = Field(
        default="adamw", description="adamw, adam, sgd (Nesterov) or relative-adam (steps relative to the weights)."
    )
    momentum: float = Field(default=0.99, ge=0, lt=1, description="Momentum of sgd.")
    clip: float | None = Field(default=12.0, gt=0, description="Largest norm of a gradient.")
    accumulate: int = Field(default=1, ge=1, description="Batches whose gradients make up one step.")
    average: float = Field(
        default=0.0, ge=0, lt=1, description="Decay of a moving average of the weights, such as 0.999; 0 keeps none."
    )
    every: int = Field(
        default=50, ge=1, description="Steps between validations, each of which leaves a point to resume from."
    )
    patience: int | None = Field(
        default=None, ge=1, description="Stop after so many validations in a row without a better one."
    )
    precision: Literal["no", "bf16", "fp16"] = Field(default="no", description="Mixed precision of the products.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="cpu", description="Where to train.")
    seed: int = Field(default=0, ge=0, description="Seed of every random choice.")
