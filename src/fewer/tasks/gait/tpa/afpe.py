"""Adaptive Fourier-transform Position Encoding: where a frame stands in the walk, added to its features.

The abstract of the paper (Wu et al., GaitFormer: Revisiting Intrinsic Periodicity for Gait Recognition,
arXiv:2307.13259, 2023) fixes this much: features and discrete-time signals are turned adaptively into embeddings that
are sensitive to periodic walking. Its equations are not public. Everything below is chosen here; ``fourier`` follows
Li et al., Learnable Fourier Features (NeurIPS 2021).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.tasks.gait.tpa.spectrum import LONGEST, SHORTEST, Rhythm, find_rhythm, frame_mask, soft_frequency

__all__ = ["AFPE", "Encoding", "leg_signal", "sinusoid"]

Encoding = Literal["none", "sinusoid", "fourier", "fundamental", "phase"]


def sinusoid(frames: int, channels: int) -> Tensor:
    """The fixed encoding of transformers (Vaswani et al., 2017), shape (frames, channels); the control of the others.

    Examples
    --------
    >>> sinusoid(2, 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, channels, 2) / channels)
    angle = torch.arange(frames)[:, None] * rates[None, :]
    return torch.stack([angle.sin(), angle.cos()], 2).reshape(frames, -1)[:, :channels]


def leg_signal(features: Tensor, weight: Tensor) -> Tensor:
    """One number a frame, of the lowest quarter of the parts.

    From (sequences, parts, frames, channels) to (sequences, frames). Legs tell the phase of a walk; ``weight``
    (channels,) says which features of theirs count.
    """
    parts = features.shape[1]
    return torch.einsum("nptc,c->nt", features[:, parts - max(1, parts // 4) :], weight)


class AFPE(nn.Module):
    """Adds an encoding of the position in time to features of any length.

    ==============  ================================================================================================
    none            nothing
    sinusoid        fixed sines of the frame's number, times one learnt factor; knows no period
    fourier         learnt sines of the frame's number through a small network; the same for all sequences
    fundamental     sines of the sequence's own frequency and its multiples, for each part, from a soft mean of the
                    amplitude spectrum in the band of walking; gated by the features
    phase           the same, from the strongest rhythm of the legs, counted from its own phase: sequences that start
                    in another phase get the same encoding at the same moment of a stride
    ==============  ================================================================================================

    The last layer of each encoding starts at zero, so that a network begins as it is without it.

    Parameters
    ----------
    channels
        Of the features.
    encoding
        One of the above.
    harmonics
        Multiples of the frequency.
    size
        Learnt sines of ``fourier``.

    Examples
    --------
    >>> encode = AFPE(8, "phase")
    >>> encode(torch.zeros(2, 4, 30, 8), torch.tensor([30, 20])).shape
    torch.Size([2, 4, 30, 8])
    """

    def __init__(self, channels: int, encoding: Encoding = "phase", harmonics: int = 4, size: int = 32) -> None:
        super().__init__()
        self.channels, self.encoding, self.harmonics = channels, encoding, harmonics
        if encoding == "sinusoid":
            self.factor = nn.Parameter(torch.zeros(()))
        elif encoding == "fourier":
            # rates of half a cycle to some cycles a stride
            self.rates = nn.Parameter(torch.randn(size // 2) * 2 * math.pi / 25)
            self.inner, self.outer = nn.Linear(size, size), nn.Linear(size, channels, bias=False)
            nn.init.zeros_(self.outer.weight)
        elif encoding in ("fundamental", "phase"):
            self.gate = nn.Linear(channels, 2 * harmonics)
            self.outer = nn.Linear(2 * harmonics, channels, bias=False)
            nn.init.zeros_(self.outer.weight)
            if encoding == "phase":
                self.legs = nn.Parameter(torch.full((channels,), 1 / channels))

    def rhythm(self, features: Tensor, lengths: Tensor) -> Rhythm:
        """The rhythm of the legs; the weights of ``phase`` where they are there."""
        weight = getattr(self, "legs", None)
        if weight is None:
            weight = torch.full((features.shape[3],), 1 / features.shape[3]).to(features)
        return find_rhythm(leg_signal(features, weight), lengths, SHORTEST, LONGEST)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Encode.

        Parameters
        ----------
        features
            Shape (sequences, parts, frames, channels).
        lengths
            Real frames of each sequence, (sequences,).

        Returns
        -------
        Tensor
            Of the same shape.
        """
        frames = features.shape[2]
        if self.encoding == "none":
            return features
        if self.encoding == "sinusoid":
            return features + self.factor * sinusoid(frames, self.channels).to(features)
        if self.encoding == "fourier":
            angle = torch.arange(frames, device=features.device, dtype=features.dtype)[:, None] * self.rates
            waves = torch.cat([angle.cos(), angle.sin()], 1) / math.sqrt(2 * len(self.rates))
            return features + self.outer(F.gelu(self.inner(waves)))
        n, parts = features.shape[:2]
        if self.encoding == "fundamental":
            time = torch.arange(frames, device=features.device, dtype=features.dtype)
            each = soft_frequency(features.flatten(0, 1), lengths.repeat_interleave(parts))
            phase = 2 * math.pi * each.view(n, parts, 1) * time
        else:
            phase = self.rhythm(features, lengths).phase(frames)[:, None, :].expand(n, parts, frames)
        multiples = torch.arange(1, self.harmonics + 1, device=features.device, dtype=features.dtype)
        waves = torch.cat([(phase[..., None] * multiples).cos(), (phase[..., None] * multiples).sin()], 3)
        mask = frame_mask(frames, lengths)[:, None, :, None].to(features.dtype)
        mean = (features * mask).sum(2) / lengths.view(-1, 1, 1).to(features.dtype)
        return features + self.outer(waves * torch.sigmoid(self.gate(mean))[:, :, None, :])
