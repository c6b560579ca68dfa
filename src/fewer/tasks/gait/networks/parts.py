"""Layers that gait networks share. Attribute names are those of OpenGait's, so that its checkpoints fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.tasks.gait.tpa.spectrum import frame_mask

__all__ = [
    "ConvOnly",
    "ConvOnly3d",
    "EachFrame",
    "HorizontalPooling",
    "SeparateFCs",
    "SeparateNecks",
    "keep_real",
    "max_over_time",
]


class EachFrame(nn.Module):
    """Applies a module for images to every frame: (sequences, channels, frames, height, width).

    Frames are laid out with their channels last. On CPUs the convolutions and batch norms that follow keep that layout
    and take about half the time.
    """

    def __init__(self, forward_block: nn.Module) -> None:
        super().__init__()
        self.forward_block = forward_block

    def forward(self, x: Tensor) -> Tensor:
        """All frames as one batch."""
        n, _, frames = x.shape[:3]
        if x.shape[1] == 1:  # a single channel only counts as the last one if its stride says so
            flat = x[:, 0].flatten(0, 1).unsqueeze(3).permute(0, 3, 1, 2)
        else:
            flat = x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self.forward_block(flat).unflatten(0, (n, frames)).transpose(1, 2)


class ConvOnly(nn.Module):
    """A convolution without bias, called ``conv``; ``halving`` cuts the height into that power of two of strips."""

    def __init__(self, ins: int, outs: int, size: int, padding: int, halving: int = 0, stride: int = 1) -> None:
        super().__init__()
        self.halving = halving
        self.conv = nn.Conv2d(ins, outs, size, stride, padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, strips apart from each other (the focal convolution of GaitPart)."""
        if not self.halving:
            return self.conv(x)
        strips = x.split(x.shape[2] // 2**self.halving, 2)
        return torch.cat([self.conv(strip) for strip in strips], 2)


class ConvOnly3d(nn.Module):
    """A convolution over space and time without bias, called ``conv3d``."""

    def __init__(self, ins: int, outs: int, size: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(ins, outs, tuple(size), tuple(stride), tuple(padding), bias=False)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        return self.conv3d(x)


class HorizontalPooling(nn.Module):
    """Mean plus maximum over horizontal strips: (n, channels, height, width) to (n, channels, strips).

    Fu et al., Horizontal Pyramid Matching (AAAI 2019). Has no parameters.
    """

    def __init__(self, bins: Sequence[int] = (16,)) -> None:
        super().__init__()
        self.bins = tuple(bins)

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        found = []
        for count in self.bins:
            strips = x.reshape(*x.shape[:2], count, -1)
            found.append(strips.mean(3) + strips.amax(3))
        return torch.cat(found, 2)


class SeparateFCs(nn.Module):
    """A linear map of its own for every part: (n, channels, parts)."""

    def __init__(self, parts: int, ins: int, outs: int) -> None:
        super().__init__()
        self.fc_bin = nn.Parameter(nn.init.xavier_uniform_(torch.zeros(parts, ins, outs)))

    def forward(self, x: Tensor) -> Tensor:
        """Map."""
        return torch.einsum("ncp,pcd->ndp", x, self.fc_bin)


class SeparateNecks(nn.Module):
    """Batch norm, then cosine to one direction a class and part (the BNNeck of Luo et al., CVPRW 2019)."""

    def __init__(self, parts: int, channels: int, classes: int) -> None:
        super().__init__()
        self.fc_bin = nn.Parameter(nn.init.xavier_uniform_(torch.zeros(parts, channels, classes)))
        self.bn1d = nn.BatchNorm1d(channels * parts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised features (n, channels, parts) and cosines (n, classes, parts)."""
        calm = F.normalize(self.bn1d(x.flatten(1)).view_as(x), dim=1)
        return calm, torch.einsum("ncp,pck->nkp", calm, F.normalize(self.fc_bin, dim=1))


def keep_real(x: Tensor, lengths: Tensor | None, fill: float = 0.0) -> Tensor:
    """Frames after the end of each sequence replaced, axis 2; what a convolution over time must not see."""
    if lengths is None:
        return x
    mask = frame_mask(x.shape[2], lengths).view(len(x), 1, x.shape[2], *[1] * (x.ndim - 3))
    return x.masked_fill(~mask, fill)


def max_over_time(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Maximum over the real frames, axis 2."""
    return keep_real(x, lengths, float("-inf")).amax(2)
