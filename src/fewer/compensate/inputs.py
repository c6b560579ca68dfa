"""A layer's input as the rows that its weight multiplies: tokens of a linear layer, patches of a convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def input_rows(module: nn.Module, x: Tensor) -> Tensor:
    """Lay out the input of a linear or convolution layer so that the layer is one matrix product.

    Parameters
    ----------
    module
        ``Linear``, ``Conv1d``, ``Conv2d`` or ``Conv3d``, grouped or not, with any stride, dilation and padding.
    x
        What the module is called with.

    Returns
    -------
    Tensor
        Shape (rows, groups, inputs per group times kernel); ``rows`` counts samples times output positions.

    Examples
    --------
    >>> import torch
    >>> conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    >>> x = torch.randn(2, 4, 5, 5)
    >>> rows = input_rows(conv, x)
    >>> y = torch.einsum("ngd,grd->ngr", rows, conv.weight.view(2, 3, -1)).reshape(2, 3, 3, 6).permute(0, 3, 1, 2)
    >>> bool(torch.allclose(y + conv.bias.view(1, -1, 1, 1), conv(x), atol=1e-5))
    True
    """
    if isinstance(module, nn.Linear):
        return x.reshape(-1, 1, module.in_features)
    assert isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    spatial = len(module.kernel_size)
    if x.ndim == spatial + 1:  # a single sample without a batch dimension
        x = x[None]
    x = _padded(module, x)
    for axis, (kernel, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True)
    ):
        x = x.unfold(2 + axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    positions = range(2, 2 + spatial)
    kernel_axes = range(2 + spatial, 2 + 2 * spatial)
    x = x.permute(0, *positions, 1, *kernel_axes)
    return x.reshape(-1, module.groups, module.weight[0].numel())


def _padded(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    if module.padding == "valid":
        return x
    sides: list[int] = []
    for axis in reversed(range(len(module.kernel_size))):
        if module.padding == "same":
            total = module.dilation[axis] * (module.kernel_size[axis] - 1)
            sides += [total // 2, total - total // 2]
        else:
            sides += [int(module.padding[axis])] * 2
    if not any(sides):
        return x
    return F.pad(x, sides, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
