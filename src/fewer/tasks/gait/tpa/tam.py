"""Temporal Aggregation Module: trend and seasonal part, and the movement averaged over the repetitions of a walk.

The abstract of the paper (arXiv:2307.13259) fixes this much: embeddings are split into a trend and a seasonal part,
and meaningful temporal correlations find the primary components and leave random noise out. Its equations are not
public. Decomposition and correlation follow Autoformer (Wu et al., NeurIPS 2021); chosen here: correlation without
wrap-around, lags of each sequence of its own, also in training, edges that are continued by the sequence's own period,
and a start at which the module changes nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.tasks.gait.tpa.spectrum import centred, correlation, find_lag

__all__ = ["TAM", "aggregate", "decompose"]


def decompose(values: Tensor, window: int, lengths: Tensor, lag: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Trend (a moving average over time) and the rest; their sum is the input.

    Parameters
    ----------
    values
        Shape (sequences, parts, frames, channels).
    window
        Frames of the average, odd.
    lengths
        Real frames.
    lag
        Period of each sequence, in frames: what lies before its start and after its end is taken from one period
        later or earlier. 0, or None, repeats the first and last frame.

    Examples
    --------
    >>> x = torch.randn(1, 2, 12, 3)
    >>> trend, seasonal = decompose(x, 5, torch.tensor([12]))
    >>> torch.equal(trend + seasonal, x) or torch.allclose(trend + seasonal, x)
    True
    """
    half, frames = window // 2, values.shape[2]
    places = torch.arange(-half, frames + half, device=values.device)[None, :].expand(len(values), -1)
    length = lengths[:, None]
    if lag is not None:
        step = torch.where(lag > 0, lag, torch.full_like(lag, 4 * frames))[:, None]
        early = places + step * torch.div(-places + step - 1, step, rounding_mode="floor")
        late = places - step * torch.div(places - length + step, step, rounding_mode="floor")
        # a sequence without a period keeps its places here, and is clamped below
        early = torch.where(lag[:, None] > 0, early, places)
        late = torch.where(lag[:, None] > 0, late, places)
        places = torch.where(places < 0, early, torch.where(places >= length, late, places))
    places = torch.minimum(places.clamp(min=0), length - 1)
    wide = values.gather(2, places[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3]))
    flat = wide.transpose(2, 3).flatten(0, 2)[:, None, :]
    trend = F.avg_pool1d(flat, window, 1).view(*values.shape[:2], values.shape[3], frames).transpose(2, 3)
    return trend, values - trend


def aggregate(values: Tensor, lags: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
    """Mean of the frames that stand whole lags earlier and later, without wrap-around.

    Parameters
    ----------
    values
        Shape (sequences, parts, frames, channels).
    lags, weights
        Shape (sequences, lags); a lag of 0 counts nothing.
    lengths
        Real frames.

    Returns
    -------
    Tensor
        As ``values``; a frame without any counterpart stays as it is.
    """
    frames = values.shape[2]
    time = torch.arange(frames, device=values.device)[None, :]
    total, mass = torch.zeros_like(values), torch.zeros(len(values), 1, frames, 1).to(values)
    for j in range(lags.shape[1]):
        for sign in (1, -1):
            places = time + sign * lags[:, j : j + 1]
            there = (places >= 0) & (places < lengths[:, None]) & (lags[:, j : j + 1] > 0)
            index = places.clamp(0, frames - 1)[:, None, :, None].expand_as(values)
            weight = (weights[:, j : j + 1] * there)[:, None, :, None]
            total, mass = total + weight * values.gather(2, index), mass + weight
    return torch.where(mass > 0, total / mass.clamp(min=1e-12), values)


class TAM(nn.Module):
    """Splits features into trend and seasonal part, averages the latter over repetitions, and puts both together.

    Parameters
    ----------
    channels
        Of the features.
    window
        Frames of the moving average, odd; about half a step.
    trend
        Split; otherwise all is seasonal.
    correlate
        Average over repetitions.
    lags
        Lags that are averaged over.
    rule
        ``period``: the first multiples of the strongest lag. ``top``: the lags of largest correlation, weighted by a
        softmax of it, as in Autoformer.
    edges
        ``period`` continues a sequence by its own period for the moving average, ``repeat`` repeats its end frames.
    fusion
        How the parts are put together: ``sum``, ``concat`` (and a linear map) or ``gate``.

    Examples
    --------
    >>> TAM(8)(torch.randn(2, 4, 30, 8), torch.tensor([30, 17])).shape
    torch.Size([2, 4, 30, 8])
    """

    def __init__(
        self,
        channels: int,
        window: int = 5,
        *,
        trend: bool = True,
        correlate: bool = True,
        lags: int = 2,
        rule: Literal["period", "top"] = "period",
        edges: Literal["period", "repeat"] = "period",
        fusion: Literal["sum", "concat", "gate"] = "sum",
    ) -> None:
        super().__init__()
        self.window, self.trend, self.correlate, self.lags = window, trend, correlate, lags
        self.rule, self.edges, self.fusion = rule, edges, fusion
        if correlate:
            self.value = nn.Linear(channels, channels, bias=False)
            nn.init.zeros_(self.value.weight)
        last = nn.Linear(channels, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mix = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), last)
        if trend:
            self.join = nn.Linear(2 * channels if fusion == "concat" else channels, channels, bias=False)
            with torch.no_grad():
                eye = torch.eye(channels)
                self.join.weight.copy_(torch.cat([eye, eye], 1) if fusion == "concat" else eye)
            if fusion == "gate":
                self.gate = nn.Linear(2 * channels, channels)
                nn.init.zeros_(self.gate.weight)
                nn.init.zeros_(self.gate.bias)

    def find(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Correlation (sequences, lags) and the strongest lag of each sequence."""
        flat = values.transpose(1, 2).flatten(2)
        found = correlation(centred(flat, lengths), lengths)
        return found, find_lag(found, lengths)

    def _lags(self, found: Tensor, lag: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Lags and their weights, of each sequence its own."""
        if self.rule == "period":
            lags = lag[:, None] * torch.arange(1, self.lags + 1, device=lag.device)
            inside = lags < lengths[:, None]
            return lags * inside, found.gather(1, lags.clamp(max=found.shape[1] - 1)).clamp(min=0) * inside
        steps = torch.arange(found.shape[1], device=lag.device)
        allowed = (steps >= 5) & (steps[None, :] <= (lengths // 2)[:, None])
        scores, lags = found.masked_fill(~allowed, float("-inf")).topk(min(self.lags, found.shape[1]), 1)
        usable = scores.isfinite()
        weights = (scores / 0.1).masked_fill(~usable, -1e4).softmax(1) * usable
        return lags * usable, weights

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Aggregate.

        Parameters
        ----------
        values
            Shape (sequences, parts, frames, channels).
        lengths
            Real frames, (sequences,).

        Returns
        -------
        Tensor
            Of the same shape.
        """
        with torch.no_grad():  # which lags are taken is a choice; gradients go through the frames that they give
            found, lag = self.find(values, lengths)
            lags, weights = self._lags(found, lag, lengths)
        trend = torch.zeros_like(values)
        seasonal = values
        if self.trend:
            trend, seasonal = decompose(values, self.window, lengths, lag if self.edges == "period" else None)
        if self.correlate:
            seasonal = seasonal + self.value(aggregate(seasonal, lags, weights.to(values.dtype), lengths))
        seasonal = seasonal + self.mix(seasonal)
        if not self.trend:
            return seasonal
        if self.fusion == "concat":
            return self.join(torch.cat([seasonal, trend], 3))
        if self.fusion == "gate":
            share = 2 * torch.sigmoid(self.gate(torch.cat([seasonal, trend], 3)))
            return share * seasonal + (2 - share) * self.join(trend)
        return seasonal + self.join(trend)
