"""The product of a packed weight in pure torch: what runs where the native library was not built."""

from __future__ import annotations

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.kernels.format import PackedWeight, unpack


class GatherLinear:
    """Feature-major product: for each group of rows with the same inputs, one dense product over these inputs only.

    Strips are joined into groups of ``height`` rows (whose inputs are united), because small products are slow in
    torch. Breaks even with a dense product at about 50 to 60 % sparsity.

    Parameters
    ----------
    packed : PackedWeight
        The weight.
    height : int
        Rows of a group; a multiple of 16.

    Examples
    --------
    >>> from fewer.kernels.format import pack
    >>> GatherLinear(pack(2 * torch.eye(4)))(torch.ones(1, 4)).tolist()
    [[2.0, 2.0, 2.0, 2.0]]
    """

    def __init__(self, packed: PackedWeight, height: int = 32) -> None:
        dense = unpack(packed)
        self.out, self.inputs = packed.shape
        self.bias = packed.bias[: self.out].clone()
        self.groups: list[tuple[int, int, Tensor, Tensor]] = []
        for first in range(0, self.out, height):
            last = min(first + height, self.out)
            columns = dense[first:last].any(0).nonzero()[:, 0]
            self.groups.append((first, last, columns, dense[first:last][:, columns].contiguous()))

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], in the dtype of x."""
        if torch.is_grad_enabled() and x.requires_grad:
            raise FewerError("packed layers have no gradient; run the model under torch.inference_mode()")
        features = x.reshape(-1, self.inputs).t().float().contiguous()
        out = torch.empty((self.out, features.shape[1]))
        for first, last, columns, weight in self.groups:
            if columns.numel() == 0:
                out[first:last] = 0
            else:
                torch.mm(weight, features.index_select(0, columns), out=out[first:last])
        out += self.bias[:, None]
        return out.t().to(x.dtype).reshape(*x.shape[:-1], self.out)
