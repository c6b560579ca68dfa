"""The module itself: encode positions, aggregate over time; the same for every backbone."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fewer.tasks.gait.tpa.afpe import AFPE, Encoding
from fewer.tasks.gait.tpa.moments import KINDS, Kind, Moments
from fewer.tasks.gait.tpa.spectrum import Rhythm
from fewer.tasks.gait.tpa.tam import TAM

__all__ = ["CHOICES", "TPA", "TPAConfig"]


class TPAConfig(BaseModel):
    """Every choice of the module.

    Examples
    --------
    >>> TPAConfig(encoding="fourier").window
    5
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoding: Encoding = Field(default="phase", description="Position encoding.")
    harmonics: int = Field(default=4, ge=1, le=16, description="Multiples of the frequency.")
    aggregate: bool = Field(default=True, description="Use the temporal aggregation module.")
    trend: bool = Field(default=True, description="Split into trend and seasonal part.")
    correlate: bool = Field(default=True, description="Average over repetitions.")
    window: int = Field(default=5, ge=1, le=99, description="Frames of the moving average; odd.")
    lags: int = Field(default=2, ge=1, le=16, description="Lags that are averaged over.")
    rule: Literal["period", "top"] = "period"
    edges: Literal["period", "repeat"] = "period"
    fusion: Literal["sum", "concat", "gate"] = "sum"
    moments: tuple[Kind, ...] = Field(default=(), description="Moments over time, added to what is pooled.")


CHOICES: dict[str, TPAConfig | None] = {
    "off": None,
    "moments": TPAConfig(encoding="none", aggregate=False, moments=KINDS),
    "none": TPAConfig(encoding="none"),
    "sinusoid": TPAConfig(encoding="sinusoid"),
    "fourier": TPAConfig(encoding="fourier"),
    "fundamental": TPAConfig(encoding="fundamental"),
    "phase": TPAConfig(encoding="phase"),
}
"""What ``--tpa`` can say. ``moments`` is no part of the paper; it gained more than its idea did (docs/gait.md)."""


class TPA(nn.Module):
    """Temporal Periodic Alignment over the time axis of part features.

    What the abstract of arXiv:2307.13259 fixes, and what was chosen here, is told in
    :mod:`fewer.tasks.gait.tpa.afpe` and :mod:`fewer.tasks.gait.tpa.tam`. The abstract calls the module plug-and-play;
    that it works on features of horizontal parts, right before the maximum over time, was chosen here.

    Parameters
    ----------
    channels
        Of the features.
    config
        See :class:`TPAConfig`.
    parts
        Of the body; moments need to know it.

    Examples
    --------
    >>> module, x = TPA(8), torch.randn(2, 4, 30, 8)
    >>> torch.allclose(module(x, torch.tensor([30, 30])), x, atol=1e-5)  # before training it changes nothing
    True
    """

    def __init__(self, channels: int, config: TPAConfig | None = None, parts: int = 16) -> None:
        super().__init__()
        self.config = config = config or TPAConfig()
        self.encode = AFPE(channels, config.encoding, config.harmonics)
        self.gather = (
            TAM(
                channels,
                config.window | 1,
                trend=config.trend,
                correlate=config.correlate,
                lags=config.lags,
                rule=config.rule,
                edges=config.edges,
                fusion=config.fusion,
            )
            if config.aggregate
            else None
        )
        self.moments = Moments(channels, parts, config.moments) if config.moments else None

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features (sequences, parts, frames, channels) of any number of frames, to features of the same shape."""
        if lengths is None:
            lengths = torch.full((len(features),), features.shape[2], dtype=torch.int64, device=features.device)
        found = self.encode(features, lengths)
        return found if self.gather is None else self.gather(found, lengths)

    def rhythm(self, features: Tensor, lengths: Tensor) -> Rhythm:
        """Period and phase that the module finds in features."""
        return self.encode.rhythm(features, lengths)
