"""A weight as the matrix that patterns are laid over: one row per output, input channels of a tap side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["channel_order", "to_matrix", "to_weight"]


def to_matrix(weight: Tensor) -> Tensor:
    """The matrix of a linear or convolution weight.

    A tile of a convolution lies along the input channels of one tap of the kernel, as block-sparse kernels read
    channels-last images, and as n:m hardware counts its groups.

    Parameters
    ----------
    weight
        Shape (out, inputs per group, *kernel), or anything laid out like it: a mask, a gradient.

    Returns
    -------
    Tensor
        Shape (out, kernel times inputs per group); a view for linear layers and 1 x 1 convolutions.

    Examples
    --------
    >>> import torch
    >>> to_matrix(torch.arange(8.0).view(1, 2, 2, 2)).tolist()
    [[0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]]
    """
    return weight.flatten(1) if weight[0, 0].numel() == 1 else weight.movedim(1, -1).flatten(1)


def to_weight(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """The other way round: what :func:`to_matrix` made, in the weight's shape.

    Examples
    --------
    >>> import torch
    >>> weight = torch.randn(4, 2, 3, 3)
    >>> torch.equal(to_weight(to_matrix(weight), weight.shape), weight)
    True
    """
    out, inputs, *kernel = shape
    return matrix.view(out, *kernel, inputs).movedim(-1, 1)


def channel_order(columns: int, taps: int) -> Tensor:
    """Columns of :func:`to_matrix`, sorted so that all taps of an input channel stand together.

    Examples
    --------
    >>> channel_order(6, 2)
    tensor([0, 3, 1, 4, 2, 5])
    """
    return torch.arange(columns).view(taps, -1).T.flatten()
