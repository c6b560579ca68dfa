"""Dense layers in bf16: what a layer becomes that gains from the precision but not from its zeros."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DenseBF16(nn.Module):
    """A linear or convolution layer whose weight is kept and multiplied in bf16; fp32 in and out.

    Examples
    --------
    >>> DenseBF16(nn.Linear(4, 2))(torch.ones(1, 4)).dtype
    torch.float32
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        import copy

        self.layer = copy.deepcopy(layer).to(torch.bfloat16).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Like the layer, in the dtype of x."""
        return self.layer(x.to(torch.bfloat16)).to(x.dtype)
