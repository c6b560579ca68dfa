"""What a network is made of, as plain values that a recipe holds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fewer.tasks.gait.tpa import TPAConfig

__all__ = ["NetworkConfig"]

Name = Literal["gaitset", "gaitpart", "gaitgl", "gaitbase", "deepgaitv2"]


class NetworkConfig(BaseModel):
    """What a network is made of.

    Examples
    --------
    >>> NetworkConfig(network="gaitset").size
    'small'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: Name = "gaitbase"
    size: Literal["tiny", "small", "published"] = "small"
    classes: int = Field(default=74, ge=1)
    tpa: TPAConfig | None = None
    layers: tuple[int, int, int, int] | None = Field(default=None, description="Blocks of the four residual stages.")
    channels: tuple[int, ...] | None = Field(default=None, description="Widths other than those of the size.")
    outs: int | None = Field(default=None, ge=1, description="Channels of the embedding, where they are no width.")
