"""Moments over time: the mean of features, how they spread and how fast they change, beside their maximum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fewer.tasks.gait.tpa.spectrum import frame_mask

__all__ = ["KINDS", "Kind", "Moments", "moments_of"]

Kind = Literal["maximum", "mean", "spread", "change"]
KINDS: tuple[Kind, ...] = ("mean", "spread", "change")
_LAGS = (1, 3, 6)
"""Frames over which changes are looked at; at 25 frames a second, up to half a step."""


def moments_of(values: Tensor, lengths: Tensor, kinds: Sequence[Kind] = KINDS) -> Tensor:
    """Maximum, mean, standard deviation, and mean absolute change over one, three and six frames.

    Parameters
    ----------
    values
        Shape (sequences, parts, frames, channels).
    lengths
        Real frames of each sequence; a change over more frames than there are counts as none.
    kinds
        Those that are wanted, in their order; one may be wanted several times.

    Returns
    -------
    Tensor
        Shape (sequences, parts, moments * channels).

    Examples
    --------
    >>> walk = torch.tensor([0.0, 2.0, 0.0, 2.0])[None, None, :, None]
    >>> [round(v, 2) for v in moments_of(walk, torch.tensor([4])).flatten().tolist()]
    [1.0, 1.0, 2.0, 2.0, 0.0]
    """
    frames, counts = values.shape[2], lengths.view(-1, 1, 1).to(values.dtype)
    mask = frame_mask(frames, lengths)[:, None, :, None].to(values.dtype)
    mean = (values * mask).sum(2) / counts
    found: list[Tensor] = []
    for kind in kinds:
        if kind == "maximum":
            found.append(values.masked_fill(mask == 0, float("-inf")).amax(2))
        elif kind == "mean":
            found.append(mean)
        elif kind == "spread":
            variance = ((values - mean[:, :, None]).square() * mask).sum(2) / counts
            found.append((variance + 1e-6).sqrt())
        else:
            found += [_change(values, mask, counts, lag) for lag in _LAGS]
    return torch.cat(found, 2)


def _change(values: Tensor, mask: Tensor, counts: Tensor, lag: int) -> Tensor:
    """Mean absolute change over a number of frames."""
    if lag >= values.shape[2]:
        return torch.zeros_like(values[:, :, 0])
    change = (values[:, :, lag:] - values[:, :, :-lag]).abs() * mask[:, :, lag:]
    return change.sum(2) / (counts - lag).clamp(min=1)


class Moments(nn.Module):
    """Adds a linear map of moments over time, each part its own, to what was pooled over time.

    The maximum over time, by which most networks pool, forgets where a feature usually is, how much it moves and how
    fast. No period has to be found, so that short sequences are no trouble; but a change over so many frames is another
    movement at another frame rate, so gallery and probes should have the same.

    Parameters
    ----------
    channels
        Of the features.
    parts
        Of the body.
    kinds
        See :func:`moments_of`.

    Examples
    --------
    >>> Moments(8, 4)(torch.randn(2, 4, 30, 8), torch.tensor([30, 1])).shape
    torch.Size([2, 4, 8])
    """

    def __init__(self, channels: int, parts: int, kinds: Sequence[Kind] = KINDS) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        count = sum(len(_LAGS) if kind == "change" else 1 for kind in self.kinds)
        self.fc_bin = nn.Parameter(nn.init.xavier_uniform_(torch.zeros(parts, count * channels, channels)))

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Features (sequences, parts, frames, channels) to (sequences, parts, channels)."""
        return torch.einsum("npm,pmc->npc", moments_of(values, lengths, self.kinds), self.fc_bin)
