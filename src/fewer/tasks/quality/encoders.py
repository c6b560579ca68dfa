"""From views to tokens: a small convolutional encoder of quality, and any vision encoder of transformers beside it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ImageEncoder", "QualityEncoder"]


class QualityEncoder(nn.Module):
    """Convolutions on native pixels and on what a blur takes away from them.

    Semantic encoders are trained not to see defects, so this one stands beside them. It gives a grid of tokens and two
    more, the mean and the deviation over the grid.

    Parameters
    ----------
    width
        Channels of the first layer; tokens have four times as many.
    grid
        Tokens per side.

    Examples
    --------
    >>> QualityEncoder(4, 2)(torch.zeros(3, 3, 32, 32)).shape
    torch.Size([3, 6, 16])
    """

    def __init__(self, width: int = 24, grid: int = 4) -> None:
        super().__init__()
        sizes = [6, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(sizes)):
            layers.append(nn.Conv2d(before, after, 3, stride=1 if i == 0 else 2, padding=1))
            # one group over all channels: a norm per channel would take the brightness away
            layers += [nn.GroupNorm(1, after), nn.GELU()] if i else [nn.GELU()]
        self.layers = nn.Sequential(*layers)
        self.grid, self.width = grid, sizes[-1]
        self.tokens = grid * grid + 2

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens [N, grid x grid + 2, width] of pixels [N, 3, H, W] in 0..1."""
        centred = (pixels - 0.5) * 2
        fine = 8 * (pixels - F.avg_pool2d(pixels, 5, 1, 2, count_include_pad=False))
        found = self.layers(torch.cat([centred, fine], 1))
        cells = F.adaptive_avg_pool2d(found, self.grid).flatten(2).transpose(1, 2)
        flat = found.flatten(2)
        return torch.cat([flat.mean(2, keepdim=True), flat.std(2, keepdim=True), cells.transpose(1, 2)], 2).transpose(
            1, 2
        )


class ImageEncoder(nn.Module):
    """Any vision encoder that gives hidden states, such as CLIP, DINOv2 or SigLIP of transformers: frozen by default.

    Parameters
    ----------
    model
        Called with ``pixel_values``; its ``last_hidden_state`` is [N, tokens, width], the first token being CLS.
    mean, std
        Of its preprocessing, by channel.
    grid
        Patch tokens are pooled to so many per side; CLS is kept.
    frozen
        Its weights do not train.
    """

    def __init__(self, model: nn.Module, width: int, mean: Any, std: Any, grid: int = 4, frozen: bool = True) -> None:
        super().__init__()
        self.model, self.width, self.grid, self.frozen = model, width, grid, frozen
        self.tokens = grid * grid + 1
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        for parameter in model.parameters():
            parameter.requires_grad_(not frozen)

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens [N, grid x grid + 1, width] of pixels [N, 3, H, W] in 0..1."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            scaled = (pixels - self.mean) / self.std  # pyright: ignore[reportOperatorIssue]
            found = self.model(pixel_values=scaled).last_hidden_state
        patches = found[:, 1:]
        side = int(patches.shape[1] ** 0.5)
        patches = patches[:, : side * side].transpose(1, 2).unflatten(2, (side, side))
        pooled = F.adaptive_avg_pool2d(patches, self.grid).flatten(2).transpose(1, 2)
        return torch.cat([found[:, :1], pooled], 1)
