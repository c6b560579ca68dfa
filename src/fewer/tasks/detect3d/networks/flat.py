"""The 2-D part seen from above: stages of convolutions, each brought to one size and put side by side."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.tasks.detect3d.networks.config import DetectorConfig

__all__ = ["BaseBEVBackbone", "UpConv", "upsampling"]


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class UpConv(nn.Conv2d):
    """The weight of a transposed convolution whose stride is its kernel, as a 1 x 1 convolution.

    Such a convolution writes every output from one input, so that it is a product with ``out * factor^2`` rows whose
    results are laid out as squares. In this form it can be pruned and rounded like any other layer. A weight of
    ``nn.ConvTranspose2d``, shape (in, out, factor, factor), loads as it is where its shape tells.
    """

    def __init__(self, inputs: int, outputs: int, factor: int) -> None:
        super().__init__(inputs, outputs * factor * factor, 1, bias=False)
        self.factor = factor

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        given = state_dict.get(f"{prefix}weight")
        if isinstance(given, Tensor) and given.shape != self.weight.shape and given.ndim == 4:
            turned = given.permute(1, 2, 3, 0).reshape(-1, given.shape[0], 1, 1)
            if turned.shape == self.weight.shape:
                state_dict[f"{prefix}weight"] = turned.contiguous()
        super()._load_from_state_dict(state_dict, prefix, *rest)


class _Up(nn.Sequential):
    """An :class:`UpConv`, its squares laid out, norm and ReLU."""

    def __init__(self, up: UpConv, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__(up, norm, activation)
        self.factor = up.factor  # known here too: a faster layer may take the convolution's place

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        y = self[0](x)
        return self[2](self[1](F.pixel_shuffle(y, self.factor) if self.factor > 1 else y))  # type: ignore[operator]


def upsampling(inputs: int, outputs: int, stride: float) -> nn.Sequential:
    """Bring a stage to the common size: ``stride`` at least 1 enlarges, below 1 shrinks.

    Examples
    --------
    >>> [upsampling(4, 8, s)(torch.zeros(1, 4, 6, 6)).shape[-1] for s in (1, 2, 0.5)]
    [6, 12, 3]
    """
    if stride >= 1:
        return _Up(UpConv(inputs, outputs, int(stride)), _norm(outputs), nn.ReLU())
    step = round(1 / stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, step, stride=step, bias=False), _norm(outputs), nn.ReLU())


class BaseBEVBackbone(nn.Module):
    """Stages at falling resolution, each enlarged again; the results are stacked."""

    def __init__(self, config: DetectorConfig, inputs: int) -> None:
        super().__init__()
        blocks, ups = [], []
        for count, stride, width in zip(config.layers, config.strides, config.filters, strict=True):
            first = nn.Conv2d(inputs, width, 3, stride=stride, padding=0, bias=False)
            parts: list[nn.Module] = [nn.ZeroPad2d(1), first, _norm(width), nn.ReLU()]
            for _ in range(count):
                parts += [nn.Conv2d(width, width, 3, padding=1, bias=False), _norm(width), nn.ReLU()]
            blocks.append(nn.Sequential(*parts))
            inputs = width
        for width, outputs, stride in zip(config.filters, config.up_filters, config.up_strides, strict=True):
            ups.append(upsampling(width, outputs, stride))
        self.blocks, self.deblocks = nn.ModuleList(blocks), nn.ModuleList(ups)
        self.channels = sum(config.up_filters)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, channels, y, x) to (samples, channels of all stages, y', x')."""
        found = []
        for block, up in zip(self.blocks, self.deblocks, strict=True):
            x = block(x)
            found.append(up(x))
        side = found[0].shape[-2:]
        return torch.cat([one[..., : side[0], : side[1]] for one in found], 1)
