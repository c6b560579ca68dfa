"""Everything that a training can be told, with defaults; the same names in Python, TOML and on the command line."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from typing_extensions import Self

from fewer.core.strict import StrictSettings
from fewer.training.settings import LoopSettings

__all__ = ["EvaluateSettings", "PredictSettings", "TrainSettings"]


class TrainSettings(LoopSettings):
    """Settings of a training run.

    Examples
    --------
    >>> TrainSettings.of({"patch": "128,128"}).patch
    (128, 128)
    """

    TEXT: ClassVar[tuple[str, ...]] = ("patch", "spacing", "deep_supervision")
    """Settings that may be written as text with commas."""

    network: str = Field(
        json_schema_extra={"group": "Network"},
        default="unet",
        description="unet, dynunet, segresnet, mednext, attention-unet, basic-unet (all of MONAI), or FILE.py:FUNCTION "
        "that returns a module from (batch, channels, *space) to (batch, classes, *space).",
    )
    width: int = Field(
        json_schema_extra={"group": "Network"},
        default=16,
        ge=1,
        description="Channels of the first level; they double at every further one.",
    )
    levels: int = Field(
        json_schema_extra={"group": "Network"},
        default=4,
        ge=2,
        le=7,
        description="Levels, each of half the resolution.",
    )
    dropout: float = Field(
        json_schema_extra={"group": "Network"}, default=0.0, ge=0, lt=1, description="Dropout of networks that have it."
    )
    loss: Literal["dice-ce", "dice-focal", "dice", "tversky", "ce"] = Field(
        json_schema_extra={"group": "How it learns"},
        default="dice-ce",
        description="Dice, Tversky and cross-entropy (ce) losses, or sums of two.",
    )
    deep_supervision: int | tuple[float, ...] | None = Field(
        json_schema_extra={"group": "How it learns"},
        default=None,
        description="Weights of the loss from the full resolution to the coarsest, such as 0.5,0.3,0.2, for networks "
        "with several outputs; one number n stands for n outputs with halving weights; by default the full resolution.",
    )
    patch: tuple[int, ...] | None = Field(
        json_schema_extra={"group": "Images"},
        default=None,
        description="Voxels along each axis of what the network sees at once, such as 128,128; by default fitted to "
        "the data.",
    )
    patch_voxels: int = Field(
        json_schema_extra={"group": "Images"},
        default=65536,
        ge=64,
        description="Most voxels of a patch that is fitted; 65536 are 256 x 256, or 40 x 40 x 40.",
    )
    spacing: Literal["auto", "native"] | tuple[float, ...] = Field(
        json_schema_extra={"group": "Images"},
        default="auto",
        description="mm per voxel that everything is brought to, such as 1,1,3; auto takes the median where cases "
        "differ by more than 5 %, native never resamples.",
    )
    normalise: Literal["auto", "zscore", "inside", "global", "ct", "none"] = Field(
        json_schema_extra={"group": "Images"},
        default="auto",
        description="zscore (each image and channel by itself), inside (the same without the voxels of the smallest "
        "value, such as those around a masked brain), global (mean and deviation of the training set), ct "
        "(clipped to the foreground's percentiles 0.5 and 99.5, then global), none; auto: ct for channels of that "
        "name, global for 8-bit colours, else zscore.",
    )
    foreground: float = Field(
        json_schema_extra={"group": "Images"},
        default=0.33,
        ge=0,
        le=1,
        description="Share of patches centred on a structure.",
    )
    augment: Literal["none", "upright", "light", "full"] = Field(
        json_schema_extra={"group": "Images"},
        default="light",
        description="none, upright (mirrored from left to right, brightness: for scans that all lie alike, in which "
        "place tells much), light (flips, quarter turns, brightness) or full (rotation, scale, blur, noise as well).",
    )
    fold: int = Field(
        json_schema_extra={"group": "Images"},
        default=0,
        ge=-1,
        description="Which part of the cases judges: of splits_final.json, else of a seeded split; -1 trains on all.",
    )
    folds: int = Field(
        json_schema_extra={"group": "Images"},
        default=5,
        ge=2,
        description="Parts, where the data set has no splits of its own.",
    )
    subject: str = Field(
        json_schema_extra={"group": "Images"},
        default="auto",
        description="Images of one subject, such as slices of one scan, are on one side of a split: auto (told from "
        "the names, sub01_z012, and said), none, or a regular expression whose first group is the subject.",
    )
    warm_up: Literal["none", "restoration", "contrastive"] = Field(
        json_schema_extra={"group": "How it starts"},
        default="none",
        description="Self-supervised training on all images first.",
    )
    warm_up_steps: int = Field(
        json_schema_extra={"group": "How it starts"}, default=300, ge=1, description="Steps of the warm-up."
    )
    warm_up_transfer: Literal["all", "encoder"] = Field(
        json_schema_extra={"group": "How it starts"},
        default="all",
        description="What is kept of the warm-up: all layers but the output, or the encoder alone.",
    )
    init: str | None = Field(
        json_schema_extra={"group": "How it starts"},
        default=None,
        description="A run folder, or the warm-up folder of fewer select --features warm-up, whose weights are the "
        "start; random by default.",
    )
    cache: float = Field(
        json_schema_extra={"group": "Images"},
        default=2.0,
        ge=0,
        description="GiB of prepared cases held in memory; others are read again when needed.",
    )

    @field_validator("patch", "spacing", "deep_supervision", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: ValidationInfo) -> Any:
        """Read ``128,128`` as it is written in flags and variables."""
        if not isinstance(value, str) or value in ("auto", "native"):
            return value
        try:
            numbers = [float(part) for part in value.split(",")]
        except ValueError:
            raise ValueError("write numbers with commas, for example 128,128") from None
        whole = info.field_name != "spacing" and all(number.is_integer() for number in numbers)
        if info.field_name == "deep_supervision" and len(numbers) == 1 and whole:
            return int(numbers[0])
        return tuple(int(number) if whole and info.field_name == "patch" else number for number in numbers)

    @field_validator("deep_supervision")
    @classmethod
    def _scales(cls, value: Any) -> Any:
        if isinstance(value, int) and not 1 <= value <= 6:
            raise ValueError("from 1 to 6 outputs can be supervised")
        if isinstance(value, tuple) and (not value or min(value) < 0 or sum(value) <= 0):
            raise ValueError("weights must not be negative, and not all 0")
        return value

    @field_validator("patch", "spacing")
    @classmethod
    def _positive(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, tuple) and (len(value) not in (2, 3) or min(value) <= 0):
            raise ValueError("two or three positive numbers are needed, one per axis")
        if info.field_name == "patch" and isinstance(value, tuple) and math.prod(value) > 2**30:
            raise ValueError("a patch of more than 2 to the power of 30 voxels fits into no memory")
        return value

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.init is not None and self.warm_up != "none":
            raise ValueError("a training starts from init or from a warm-up, not from both")
        return self

    @property
    def scale_weights(self) -> tuple[float, ...]:
        """Weights of the outputs, full resolution first, adding up to 1.

        Examples
        --------
        >>> TrainSettings(deep_supervision=2).scale_weights
        (0.6666666666666666, 0.3333333333333333)
        """
        wanted = self.deep_supervision
        if wanted is None:
            return (1.0,)
        weights = tuple(0.5**i for i in range(wanted)) if isinstance(wanted, int) else wanted
        return tuple(weight / sum(weights) for weight in weights)


class EvaluateSettings(StrictSettings):
    """What an evaluation can be told.

    Examples
    --------
    >>> EvaluateSettings().all_data
    False
    """

    all_data: bool = Field(default=False, description="Score the cases that trained as well.")


class PredictSettings(StrictSettings):
    """What a prediction can be told.

    Examples
    --------
    >>> PredictSettings.of({"overlap": 1.0})
    Traceback (most recent call last):
    fewer.core.errors.FewerError: settings: overlap=1.0: must be less than 1
    """

    overlap: float = Field(
        default=0.5, ge=0, lt=1, description="Share of a window that its neighbour covers too: less is quicker."
    )
    overlay: bool = Field(default=False, description="Write pictures with outlines as well, into OUT/overlays.")
