"""Period and phase of sequences of any length, each at its own length, also inside a padded batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Rhythm", "correlation", "find_lag", "find_rhythm", "frame_mask", "soft_frequency", "spectrum"]

SHORTEST, LONGEST = 5.0, 45.0
"""Periods that walking can have, in frames: steps and strides at 12 to 30 frames a second."""

_TIE = 0.02
"""A lag whose correlation is that near to the best one is as good; the shorter one is taken."""


def frame_mask(frames: int, lengths: Tensor) -> Tensor:
    """Which frames of a padded batch are real: bool (sequences, frames).

    Examples
    --------
    >>> frame_mask(3, torch.tensor([1, 3])).tolist()
    [[True, False, False], [True, True, True]]
    """
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


def centred(values: Tensor, lengths: Tensor) -> Tensor:
    """Values (sequences, frames, ...) without their mean over real frames, and zero in the others."""
    mask = frame_mask(values.shape[1], lengths).view(*values.shape[:2], *[1] * (values.ndim - 2)).to(values.dtype)
    mean = (values * mask).sum(1, keepdim=True) / lengths.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
    return (values - mean) * mask


def spectrum(values: Tensor, lengths: Tensor, shortest: float = SHORTEST) -> tuple[Tensor, Tensor]:
    """Amplitude at whole numbers of cycles in a sequence.

    Parameters
    ----------
    values
        Shape (sequences, frames, channels).
    lengths
        Real frames of each sequence.
    shortest
        Frames of the fastest rhythm that is looked at.

    Returns
    -------
    Tensor, Tensor
        Amplitudes (sequences, cycles, channels) for 0, 1, 2, ... cycles, and frequencies (sequences, cycles) in cycles
        a frame. A circular shift of a sequence does not change the amplitudes.
    """
    count = max(3, math.floor(values.shape[1] / shortest) + 2)  # one more than the fastest: peaks have neighbours
    cycles = torch.arange(count, device=values.device, dtype=values.dtype)
    frequencies = cycles[None, :] / lengths[:, None].to(values.dtype)
    time = torch.arange(values.shape[1], device=values.device, dtype=values.dtype)
    angle = 2 * math.pi * time[None, :, None] * frequencies[:, None, :]
    calm = centred(values, lengths)
    real = torch.einsum("ntc,ntk->nkc", calm, angle.cos())
    imaginary = torch.einsum("ntc,ntk->nkc", calm, angle.sin())
    return (real.square() + imaginary.square() + 1e-12).sqrt(), frequencies


def _in_band(frequencies: Tensor, shortest: float, longest: float) -> Tensor:
    """Frequencies that walking can have; one cycle where the sequence is shorter than a period."""
    band = (frequencies >= 1 / longest) & (frequencies <= 1 / shortest)
    band[:, 0] = False
    band[:, 1] |= ~band.any(1)
    return band


class Rhythm:
    """Frequency and phase of each sequence: frame t is at the phase ``2 pi frequency t + offset``.

    Attributes
    ----------
    frequency
        Cycles a frame, (sequences,).
    offset
        Phase of frame 0 in radians, (sequences,).
    strength
        Share of the movement that is in the rhythm, 0 to 1.
    """

    def __init__(self, frequency: Tensor, offset: Tensor, strength: Tensor) -> None:
        self.frequency, self.offset, self.strength = frequency, offset, strength

    @property
    def period(self) -> Tensor:
        """Frames of a cycle."""
        return 1 / self.frequency

    def phase(self, frames: int) -> Tensor:
        """Phase of every frame, (sequences, frames), radians."""
        time = torch.arange(frames, device=self.frequency.device, dtype=self.frequency.dtype)
        return 2 * math.pi * self.frequency[:, None] * time[None, :] + self.offset[:, None]


def find_rhythm(signal: Tensor, lengths: Tensor, shortest: float = SHORTEST, longest: float = LONGEST) -> Rhythm:
    """The strongest rhythm of a signal.

    The strongest whole number of cycles, moved towards its stronger neighbour by the share of the latter in the two
    amplitudes, which is exact for a single sine (Rife and Boorstyn, 1974); then the phase at that frequency. Of a
    signal that repeats a whole number of times the neighbours are zero: the frequency is exact, and the phase moves
    exactly with a circular shift.

    Parameters
    ----------
    signal
        Shape (sequences, frames).
    lengths
        Real frames of each sequence.
    shortest, longest
        Bounds of the period, in frames.

    Examples
    --------
    >>> t = torch.arange(60.0)
    >>> rhythm = find_rhythm(torch.cos(2 * math.pi * t / 20 + 1)[None], torch.tensor([60]))
    >>> round(rhythm.period.item(), 3), round(rhythm.offset.item(), 3)
    (20.0, 1.0)
    """
    calm = centred(signal, lengths)
    size = (calm.square().sum(1, keepdim=True) / lengths[:, None].to(signal.dtype)).sqrt()
    # of a faint signal, the least amplitude that a spectrum knows must not pass for a neighbour of the peak
    calm = calm / torch.where(size > 0, size, 1.0).detach()
    amplitude, frequencies = spectrum(calm[:, :, None], lengths, shortest)
    amplitude = amplitude[:, :, 0]
    band = _in_band(frequencies, shortest, longest)
    peak = amplitude.masked_fill(~band, -1.0).argmax(1, keepdim=True)
    last = amplitude.shape[1] - 1
    left = amplitude.gather(1, (peak - 1).clamp(min=0))
    middle, right = amplitude.gather(1, peak), amplitude.gather(1, (peak + 1).clamp(max=last))
    side = torch.maximum(left, right)
    moved = torch.where(right > left, 1.0, -1.0) * side / (middle + side)
    frequency = ((peak + moved) / lengths[:, None].to(signal.dtype))[:, 0]
    time = torch.arange(signal.shape[1], device=signal.device, dtype=signal.dtype)
    angle = 2 * math.pi * frequency[:, None] * time[None, :]
    real, imaginary = (calm * angle.cos()).sum(1), -(calm * angle.sin()).sum(1)
    power = calm.square().sum(1).clamp(min=1e-12)
    strength = (2 * (real.square() + imaginary.square()) / (lengths.to(signal.dtype) * power)).clamp(max=1.0)
    return Rhythm(frequency, torch.atan2(imaginary, real), strength)


def soft_frequency(
    values: Tensor, lengths: Tensor, heat: float = 0.1, shortest: float = SHORTEST, longest: float = LONGEST
) -> Tensor:
    """Mean frequency of a sequence, weighted by a softmax of amplitudes: differentiable, (sequences,), cycles a frame.

    Parameters
    ----------
    values
        Shape (sequences, frames, channels); amplitudes are averaged over channels.
    lengths
        Real frames.
    heat
        Of the softmax, as a share of the largest amplitude.
    shortest, longest
        Bounds of the period, in frames.
    """
    amplitude, frequencies = spectrum(values, lengths, shortest)
    mean = amplitude.mean(2)
    band = _in_band(frequencies, shortest, longest)
    scaled = mean / (heat * mean.masked_fill(~band, 0.0).amax(1, keepdim=True) + 1e-12)
    weights = scaled.masked_fill(~band, float("-inf")).softmax(1)
    return (weights * frequencies).sum(1)


def correlation(values: Tensor, lengths: Tensor) -> Tensor:
    """Correlation of a sequence with itself, later: (sequences, lags), 1 where it repeats exactly.

    The sum over channels and frames of the product with the frame ``lag`` later, over the root of the energies of both
    stretches. Zero-padded: the end of a sequence never meets its start, so its length need not be a whole number of
    periods. By FFT, in O(T log T).

    Parameters
    ----------
    values
        Shape (sequences, frames, channels), centred.
    lengths
        Real frames.

    Examples
    --------
    >>> found = correlation(torch.tensor([[1.0, -1, 1, -1, 1]])[:, :, None], torch.tensor([5]))
    >>> [round(v, 3) for v in found[0, :3].tolist()]
    [1.0, -1.0, 1.0]
    """
    frames = values.shape[1]
    values = values * frame_mask(frames, lengths)[:, :, None].to(values.dtype)
    there = torch.fft.rfft(values, n=2 * frames, dim=1)
    products = torch.fft.irfft((there * there.conj()).sum(2), n=2 * frames, dim=1)[:, :frames]
    energy = values.square().sum(2).cumsum(1)
    whole = energy[:, -1:]
    lags = torch.arange(frames, device=values.device)
    # energy of the first L - lag frames, and of all but the first lag frames
    first = energy.gather(1, (lengths[:, None] - 1 - lags[None, :]).clamp(min=0))
    before = torch.cat([torch.zeros_like(whole), energy], 1)[:, :frames]
    second = whole - before
    found = products / (first * second).clamp(min=1e-12).sqrt()
    return torch.where(lags[None, :] < lengths[:, None], found, torch.zeros_like(found)).clamp(-1, 1)


def find_lag(found: Tensor, lengths: Tensor, least: int = 5) -> Tensor:
    """The shortest lag after which a sequence repeats, (sequences,); 0 where there is none.

    The shortest local peak of the correlation that is as high as the highest one; lags from ``least`` to half of the
    sequence, as the correlation of longer ones rests on few frames.

    Parameters
    ----------
    found
        Of :func:`correlation`.
    lengths
        Real frames.
    least
        Lags below it mean no repetition, only slow movement.
    """
    count = found.shape[1]
    lags = torch.arange(count, device=found.device)
    edge = torch.full_like(found[:, :1], -2.0)
    peak = (found >= torch.cat([edge, found[:, :-1]], 1)) & (found >= torch.cat([found[:, 1:], edge], 1))
    allowed = peak & (lags >= least)[None, :] & (lags[None, :] <= (lengths // 2)[:, None]) & (found > 0)
    best = found.masked_fill(~allowed, -2.0).amax(1, keepdim=True)
    chosen = (allowed & (found >= best - _TIE)).to(torch.int64).argmax(1)
    return torch.where(allowed.any(1), chosen, torch.zeros_like(chosen))
