"""GaitPart: focal convolutions, and short movements of every part (Fan et al., CVPR 2020)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.tasks.gait.networks.network import GaitNetwork
from fewer.tasks.gait.networks.parts import (
    ConvOnly,
    EachFrame,
    HorizontalPooling,
    SeparateFCs,
    keep_real,
    max_over_time,
)
from fewer.tasks.gait.tpa import TPAConfig

__all__ = ["GaitPart"]


class _Conv1d(nn.Module):
    def __init__(self, ins: int, outs: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(ins, outs, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Gate(nn.Sequential):
    """Two convolutions over time of one part."""

    def __init__(self, channels: int, hidden: int, last: int) -> None:
        super().__init__(_Conv1d(channels, hidden, 3), nn.LeakyReLU(), _Conv1d(hidden, channels, last))

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:  # type: ignore[override]
        return self[2](keep_real(self[1](self[0](x)), lengths))


class MicroMotion(nn.Module):
    """Means and maxima over three and five frames, gated, each part by networks of its own; then the maximum."""

    def __init__(self, channels: int, parts: int, squeeze: int = 4) -> None:
        super().__init__()
        hidden = channels // squeeze
        short, long = _Gate(channels, hidden, 1), _Gate(channels, hidden, 3)
        self.conv1d3x1 = nn.ModuleList(copy.deepcopy(short) for _ in range(parts))
        self.conv1d3x3 = nn.ModuleList(copy.deepcopy(long) for _ in range(parts))

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """(n, channels, frames, parts) to (n, channels, parts)."""
        x = keep_real(x, lengths)
        found = 0.0
        for gates, width in ((self.conv1d3x1, 3), (self.conv1d3x3, 5)):
            logits = [gate(part, lengths) for gate, part in zip(gates, x.unbind(3), strict=True)]
            scores = torch.sigmoid(torch.stack(logits, 3))
            flat = x.permute(0, 3, 1, 2).flatten(0, 1)
            open_end = keep_real(x, lengths, float("-inf")).permute(0, 3, 1, 2).flatten(0, 1)
            template = F.avg_pool1d(flat, width, 1, width // 2) + F.max_pool1d(open_end, width, 1, width // 2)
            template = template.unflatten(0, (x.shape[0], x.shape[3])).permute(0, 2, 3, 1)
            # past the end the maximum is that of nothing
            found = found + keep_real(template, lengths) * scores
        return max_over_time(found, lengths)  # type: ignore[arg-type]


class _Plain(nn.Module):
    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.feature = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.feature(x)


class _Aggregate(nn.Module):
    """Only there for its name in checkpoints."""

    def __init__(self, pooling_func: nn.Module) -> None:
        super().__init__()
        self.pooling_func = pooling_func

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.pooling_func(x, lengths)


class GaitPart(GaitNetwork):
    """Focal convolutions for frames, then short movements of every strip.

    Parameters
    ----------
    channels
        Of the three pairs of layers.
    outs
        Channels of the embedding.
    tpa
        Put Temporal Periodic Alignment before the short movements.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128), outs: int = 128, tpa: TPAConfig | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        ins = 1
        for stage, width in enumerate(channels):
            layers += [nn.MaxPool2d(2)] if stage else []
            halving = stage + 1 if stage else 0
            for inner in range(2):
                size = 5 if not layers else 3
                layers += [ConvOnly(ins if not inner else width, width, size, size // 2, halving), nn.LeakyReLU()]
            ins = width
        self.Backbone = EachFrame(_Plain(layers))
        self.HPP = HorizontalPooling((16,))
        self.TFA = _Aggregate(MicroMotion(ins, 16))
        self.Head = SeparateFCs(16, ins, outs)
        self.place_tpa(ins, 16, tpa)

    def strips(self, x: Tensor) -> Tensor:
        """Sixteen strips."""
        return self.HPP(x)

    def features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Strips of every frame, and their short movements."""
        return self.align(self.frame_parts(self.Backbone(x)), lengths, self.TFA)

    def head(self, parts: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """One linear map a part; no classes."""
        found = self.Head(parts)
        return found, found, None
