"""Dense layers that gain without zeros: in bf16, or with the BatchNorm folded in."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError


class DenseBF16(nn.Module):
    """A linear or convolution layer whose weight is kept and multiplied in bf16; in and out as before.

    Examples
    --------
    >>> DenseBF16(nn.Linear(4, 2))(torch.ones(1, 4)).dtype
    torch.float32
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer).to(torch.bfloat16).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Like the layer, in the dtype of x; a cast of the module changes what it multiplies in."""
        if not x.is_floating_point():
            raise FewerError(f"the input has dtype {x.dtype}; this layer takes torch.float32 and other real numbers")
        return self.layer(x.to(self.layer.weight.dtype)).to(x.dtype)


class DenseFolded(nn.Module):
    """A dense convolution whose BatchNorm is already in its weight, and the activation after it; channels-last.

    Examples
    --------
    >>> DenseFolded(nn.Conv2d(3, 4, 1), nn.ReLU())(torch.zeros(1, 3, 2, 2)).shape
    torch.Size([1, 4, 2, 2])
    """

    def __init__(self, conv: nn.Module, activation: nn.Module | None) -> None:
        super().__init__()
        self.conv = copy.deepcopy(conv).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.activation = activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in, rows, columns] -> [batch, out, rows, columns]."""
        return self.activation(self.conv(x))
