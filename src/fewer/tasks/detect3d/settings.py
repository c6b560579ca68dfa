"""Everything that a training, an evaluation and a prediction of boxes can be told."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, field_validator

from fewer.core.strict import StrictSettings
from fewer.training.settings import LoopSettings

__all__ = ["EvaluateSettings", "PredictSettings", "TrainSettings"]

Network = Literal["pointpillars", "centerpoint-pillar", "second", "centerpoint", "pv-rcnn"]


class TrainSettings(LoopSettings):
    """Settings of a training.

    Examples
    --------
    >>> TrainSettings(network="second").size
    'small'
    """

    network: Network = Field(default="pointpillars", description="Which detector is trained.")
    size: Literal["short", "small", "published"] = Field(
        default="small",
        description="Grid and widths: 36 or 46 metres ahead with few channels for a few cores, or those of OpenPCDet.",
    )
    init: str | None = Field(
        default=None,
        description="Go on from a trained detector (its run folder), or from weights of OpenPCDet (a file; --size "
        "published).",
    )
    init_config: str | None = Field(
        default=None, description="Configuration of OpenPCDet (.yaml) that the weights in --init were trained with."
    )
    classes: tuple[str, ...] = Field(default=("Car", "Pedestrian", "Cyclist"), description="Classes that are learnt.")
    view: Literal["full", "camera"] = Field(default="full", description="Whole scans, or what KITTI's camera sees.")
    reach: tuple[float, ...] | None = Field(
        default=None,
        description="Field that is looked at, x,y,z from and x,y,z to in metres, such as --reach=-40,-40,-3,40,40,1; "
        "by default that of the size, or around the labelled objects where most of them stand elsewhere.",
    )
    cell: float | None = Field(
        default=None, gt=0, description="Side of a cell from above in metres; by default that of the size."
    )
    learning_rate: float = Field(default=3e-3, gt=0, description="Rate after its warm-up.")
    rate_shape: Literal["polynomial", "cosine", "steps", "constant"] = Field(
        default="cosine", description="How the rate falls: polynomial, cosine, steps or constant."
    )
    rate_warm_up: float = Field(default=0.2, ge=0, lt=1, description="Share of the training in which the rate rises.")
    weight_decay: float = Field(default=1e-2, ge=0, description="Decay of weights per step, in units of the rate.")
    steps: int = Field(default=1000, ge=1, description="Steps of the training.")
    every: int = Field(default=200, ge=1, description="Steps between validations.")
    set_in: int = Field(
        default=12,
        ge=0,
        description="Objects of the first class that a scan is filled up to with those of other scans, and twice the "
        "number of those of each other class.",
    )
    objects: str | None = Field(default=None, description="Further data whose objects are set in, such as real scans.")
    turn: float = Field(default=0.4, ge=0, description="Largest random turn of a scan, radians.")
    shine: float = Field(
        default=0.0,
        ge=0,
        description="Largest random change of intensities, as a factor's logarithm; for other sensors.",
    )
    least_points: int = Field(default=3, ge=0, description="Points that an object needs to be learnt.")
    judges: int = Field(default=24, ge=1, description="Scans that a validation looks at; the end is judged on all.")

    @field_validator("classes", "reach", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: Any) -> Any:
        """Read what stands with commas in flags, files and variables: ``Car,Van`` and ``0,-20,-3,40,20,1``."""
        if info.field_name == "classes":
            parts = [value] if isinstance(value, str) else list(value)
            return tuple(word.strip() for part in parts for word in str(part).split(",") if word.strip())
        if not isinstance(value, str):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            raise ValueError("write six numbers with commas, for example 0,-20,-3,40,20,1") from None

    @field_validator("reach")
    @classmethod
    def _is_a_box(cls, value: Any) -> Any:
        if value is None:
            return value
        if len(value) != 6 or not all(math.isfinite(v) for v in value):
            raise ValueError("six numbers are needed: x, y, z from and x, y, z to, in metres")
        if any(low >= high for low, high in zip(value[:3], value[3:], strict=True)):
            raise ValueError("each range needs its lower end first: x, y, z from, then x, y, z to")
        return value


class EvaluateSettings(StrictSettings):
    """Settings of an evaluation."""

    all_data: bool = Field(default=False, description="Score scans that trained as well.")
    confidence: float = Field(
        default=0.3, ge=0, le=1, description="Confidence at which missed and spurious are counted."
    )
    whole: bool = Field(default=False, description="Count objects that the network's grid does not reach as missed.")
    dense: str | None = Field(
        default=None, description="Another run, such as the one that was compressed: the page shows both side by side."
    )


class PredictSettings(StrictSettings):
    """Settings of a prediction."""

    confidence: float = Field(default=0.1, ge=0, le=1, description="Least confidence of a box that is written.")
    pictures: bool = Field(default=False, description="Write a bird's-eye view of each scan, into out/pictures.")
