"""Everything that a training, an evaluation and a prediction of gait recognition can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fewer.core.strict import StrictSettings
from fewer.training.settings import LoopSettings

__all__ = ["EvaluateSettings", "PredictSettings", "TrainSettings"]


class TrainSettings(LoopSettings):
    """Settings of a training.

    Examples
    --------
    >>> TrainSettings(network="gaitset").tpa
    'off'
    """

    network: Literal["gaitset", "gaitpart", "gaitgl", "gaitbase", "deepgaitv2"] = Field(
        default="gaitbase", description="Which network is trained."
    )
    size: Literal["tiny", "small", "published"] = Field(
        default="small", description="Widths: for tests, for a few cores, or those of OpenGait."
    )
    tpa: Literal["off", "moments", "none", "sinusoid", "fourier", "fundamental", "phase"] = Field(
        default="off",
        description="Temporal Periodic Alignment with this position encoding, or moments over time; off leaves it out.",
    )
    batch: int = Field(default=32, ge=2, description="Sequences per step.")
    each: int = Field(default=4, ge=2, description="Sequences of one person in a step.")
    frames: int = Field(default=30, ge=1, description="Frames of a sequence in a step.")
    order: Literal["ordered", "unordered"] = Field(
        default="ordered", description="Frames in their order, or any; a period cannot be seen in the latter."
    )
    skip: int = Field(default=6, ge=0, description="Frames by which the window that frames come from is longer.")
    flip: float = Field(default=0.0, ge=0, le=1, description="Chance that a sequence is mirrored.")
    margin: float = Field(default=0.2, ge=0, description="By which another person must be farther away.")
    validate_share: float = Field(
        default=0.15, ge=0, lt=1, description="Share of the training's persons that choose the best state."
    )
    cache: float = Field(
        default=2.0, ge=0, description="GiB of silhouettes held in memory; others are read again when needed."
    )
    learning_rate: float = Field(default=2e-3, gt=0, description="Rate after its warm-up.")
    rate_shape: Literal["polynomial", "cosine", "steps", "constant"] = Field(
        default="cosine", description="How the rate falls: polynomial, cosine, steps or constant."
    )
    rate_warm_up: float = Field(default=0.1, ge=0, lt=1, description="Share of the training in which the rate rises.")
    weight_decay: float = Field(default=5e-4, ge=0, description="Decay of weights per step, in units of the rate.")
    steps: int = Field(default=1000, ge=1, description="Steps of the training.")
    every: int = Field(default=200, ge=1, description="Steps between validations.")


class EvaluateSettings(StrictSettings):
    """Settings of an evaluation."""

    protocol: Literal[
        "auto", "casia-b", "ou-mvlp", "ou-mvlp-removed", "grew", "gait3d", "cross-view", "one-gallery"
    ] = Field(default="auto", description="How it is scored; auto follows from the names of the sequences.")
    all_data: bool = Field(default=False, description="Score persons that trained as well.")


class PredictSettings(StrictSettings):
    """Settings of a prediction."""

    gallery: str | None = Field(
        default=None, description="Folder of known persons; without one, every other sequence of the inputs."
    )
    top: int = Field(default=5, ge=1, le=100, description="Matches that are told for each sequence.")
    pictures: bool = Field(default=True, description="Show silhouettes on the page.")
