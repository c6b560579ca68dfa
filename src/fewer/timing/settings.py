"""How often a bench measures, and on how many images at once."""

from __future__ import annotations

from pydantic import Field
from typing_extensions import TypedDict

from fewer.core.duration import Duration
from fewer.core.strict import StrictSettings

__all__ = ["BenchChoices", "BenchSettings"]


class BenchSettings(StrictSettings):
    """Settings of :func:`fewer.bench`.

    Examples
    --------
    >>> BenchSettings.of({"time": "2min"}).time
    120.0
    """

    rounds: int | None = Field(
        default=None, description="Rounds per thread setting. By default as many as fit into the time, 7 to 50."
    )
    time: Duration = Field(default=20.0, gt=0, description="Wanted time of the rounds per thread setting.")
    deploy_batch: int = Field(default=1, description="Samples at once, where no example is given.")
    seed: int = Field(default=0, description="Chooses images, or the noise.")
    pin: bool = Field(default=True, description="Whether the system holds each process to its CPUs (Linux).")


class BenchChoices(TypedDict, total=False):
    """Single settings by name; see :class:`BenchSettings`."""

    rounds: int | None
    time: str | float
    deploy_batch: int
    seed: int
    pin: bool
