"""Statistics of natural scenes: what noise, blur, compression and wrong tones change in the numbers of an image.

Nothing here is learnt. The maps follow BRISQUE (Mittal et al., 2012): pixels less their local mean, over their local
deviation, and products of neighbours; beside them stand differences of neighbours, periods of blocks, histograms and
quantiles. An image of many contents has much the same statistics until something distorts them, so a small model learns
from some thousand images what convolutions from nothing learn from many more.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LEAST_SIDE", "scene_statistics"]

LEAST_SIDE = 32
"""Pixels a side that statistics need."""

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_PERIODS = (2, 3, 4, 5, 6, 8, 10, 12, 16)
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
_HALF = 1 / 510
"""Half a step of eight bits: differences below it are none."""


def scene_statistics(pixels: Tensor, grid: int = 4) -> tuple[Tensor, Tensor]:
    """Statistics of whole images and of the cells of a grid.

    Parameters
    ----------
    pixels
        [N, 3, H, W] in 0..1, of 32 pixels a side at least.
    grid
        Cells per side.

    Returns
    -------
    tuple of Tensor
        [N, numbers] and [N, grid x grid, numbers]; how many there are depends on neither the images nor their size.

    Examples
    --------
    >>> whole, cells = scene_statistics(torch.rand(2, 3, 48, 64), 2)
    >>> whole.shape, cells.shape
    (torch.Size([2, 753]), torch.Size([2, 4, 152]))
    """
    red, green, blue = pixels.unbind(1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    opponent = torch.stack([grey, (blue - grey) * 0.564, (red - grey) * 0.713], 1)
    whole: list[Tensor] = []
    parts: list[Tensor] = []
    scaled = opponent
    for octave in range(3):
        if octave:
            scaled = F.avg_pool2d(scaled, 2)
        maps = _maps(scaled[:, :1] if octave == 2 else scaled)
        whole += _moments(*maps)
        parts += [_log(_cells(maps[0], grid)), _log(_cells(maps[1], grid).sqrt()), _cells(maps[2], grid)]
    whole += [*_periods(grey), *_tones(pixels, opponent), *_histograms([red, green, blue, grey])]
    saturation = pixels.amax(1) - pixels.amin(1)
    off = (grey[:, ::2, ::2] - _median(grey)).abs()
    whole.append(torch.stack([_mean(off > 0.1), _mean(off > 0.25), _log(_mean(off))], 1))
    local = [saturation, (grey > 0.97).float(), (grey < 0.03).float()]
    parts += [_cells(torch.stack(local, 1), grid), _cells(torch.stack([(off > 0.1).float(), off], 1), grid)]
    cells = torch.cat(parts, 2)
    # one cell that is unlike the others tells of a distortion in one region
    whole += [cells.std(1, correction=0), cells.amax(1) - cells.mean(1), cells.amin(1) - cells.mean(1)]
    return torch.cat(whole, 1), cells


def _log(values: Tensor) -> Tensor:
    return torch.log(values + 1e-4)


def _mean(values: Tensor) -> Tensor:
    return values.float().flatten(1).mean(1)


def _cells(maps: Tensor, grid: int) -> Tensor:
    return F.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2)


def _blur(values: Tensor) -> Tensor:
    """A Gaussian window of seven pixels, as in BRISQUE."""
    place = torch.arange(7, dtype=values.dtype, device=values.device) - 3
    weight = torch.exp(-place.square() * 18 / 49)
    weight, channels = weight / weight.sum(), values.shape[1]
    values = F.pad(values, (3, 3, 3, 3), mode="reflect")
    values = F.conv2d(values, weight.view(1, 1, 1, 7).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(values, weight.view(1, 1, 7, 1).repeat(channels, 1, 1, 1), groups=channels)


def _maps(channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps whose mean is read as a logarithm, whose mean of squares is, and whose mean is read as it is."""
    mean = _blur(channels)
    deviation = (_blur(channels * channels) - mean * mean).clamp_min(0).sqrt()
    normal = (channels - mean) / (deviation + 1 / 255)
    across = F.pad((channels[..., 1:] - channels[..., :-1]).abs(), (0, 1))
    down = F.pad((channels[..., 1:, :] - channels[..., :-1, :]).abs(), (0, 0, 0, 1))
    around = [torch.roll(channels, by, axis) for axis in (2, 3) for by in (1, -1)]
    laplace = (4 * channels - around[0] - around[1] - around[2] - around[3]).abs()
    products = [normal * torch.roll(normal, shift, (2, 3)) for shift in _NEIGHBOURS]
    logs = [deviation, across, down, laplace, (channels - mean).abs(), normal.abs()]
    squares = [laplace.square(), across.square() + down.square()]
    flat = [(across < _HALF).float(), (down < _HALF).float(), (deviation < 2 / 255).float()]
    plain = [*products, channels, *flat, normal.square(), normal**3, normal.abs().sqrt()]
    return torch.cat(logs, 1), torch.cat(squares, 1), torch.cat(plain, 1)


def _moments(logs: Tensor, squares: Tensor, plain: Tensor) -> list[Tensor]:
    middle = logs[..., ::2, ::2].flatten(2).median(2)[0]  # a quarter of the pixels is enough, and sorting is slow
    return [_log(logs.mean((2, 3))), _log(squares.mean((2, 3)).sqrt()), plain.mean((2, 3)), _log(middle)]


def _periods(grey: Tensor) -> list[Tensor]:
    """How much the differences of columns and of rows repeat: blocks of JPEG and large pixels."""
    found = []
    for profile in (
        (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean(1),
        (grey[:, 1:] - grey[:, :-1]).abs().mean(2),
    ):
        smooth = F.avg_pool1d(F.pad(profile[:, None], (8, 8), mode="reflect"), 17, 1)[:, 0]
        rest = profile - smooth
        size = rest.abs().mean(1) + 1e-5
        place = torch.arange(rest.shape[1], dtype=rest.dtype, device=rest.device)
        for period in _PERIODS:
            angle = 2 * math.pi * place / period
            found.append(torch.hypot((rest * angle.cos()).mean(1), (rest * angle.sin()).mean(1)) / size)
        found += [rest[:, 7::8].mean(1) / size, (rest.amax(1) / size).clamp_min(0).log1p()]
    return [torch.stack(found, 1)]


def _tones(pixels: Tensor, opponent: Tensor) -> list[Tensor]:
    saturation = pixels.amax(1) - pixels.amin(1)
    shares = torch.tensor(_QUANTILES, dtype=pixels.dtype, device=pixels.device)
    of = [*opponent.unbind(1)[:1], saturation, *opponent.unbind(1)[1:], *pixels.unbind(1)]
    found = [torch.quantile(channel[:, ::2, ::2].flatten(1), shares, dim=1).T for channel in of]
    colour = opponent[:, 1:].square().sum(1).sqrt()
    spreads = [channel.flatten(1).std(1) for channel in of[:4]]
    return [*found, torch.stack([*spreads, _mean(saturation < 2 / 255), _log(_mean(colour))], 1)]


def _histograms(channels: list[Tensor]) -> list[Tensor]:
    """How many of the 256 levels are in use, and how jagged the histogram is: banding and stretched contrast."""
    found = []
    for channel in channels:
        places = (channel * 255).round().long().clamp(0, 255).flatten(1)
        counts = torch.zeros(len(places), 256, dtype=channel.dtype, device=channel.device)
        counts = counts.scatter_add_(1, places, torch.ones_like(places, dtype=channel.dtype)) / places.shape[1]
        used = (counts > 0).to(channel.dtype)
        reach = places.amax(1) - places.amin(1) + 1
        jagged = (counts[:, 1:] - counts[:, :-1]).abs().sum(1)
        ends = [counts[:, :4].sum(1), counts[:, -4:].sum(1)]
        peaks = [counts.amax(1), *ends, counts.square().sum(1).log()]
        found.append(torch.stack([used.mean(1), jagged, *peaks, used.sum(1) / reach], 1))
    return found


def _median(grey: Tensor) -> Tensor:
    """The median of three by three pixels around every second one."""
    around = F.unfold(F.pad(grey[:, None], (1, 1, 1, 1), mode="reflect"), 3, stride=2)
    return around.median(1)[0].view(len(grey), (grey.shape[1] + 1) // 2, (grey.shape[2] + 1) // 2)
