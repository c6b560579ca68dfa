"""A weight as the matrix that patterns are laid over: one row per output, four input channels of a tap side by side."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["TOGETHER", "to_matrix", "to_weight"]

TOGETHER = 4
"""Channels that stand together: a tile of as many columns is what a block-sparse kernel reads at once from a
channels-last image, and a run of channels is still a run of columns, so that it can be removed as one."""


def together(inputs: int) -> int:
    """How many of a convolution's input channels stand together; a number that does not divide them would not do."""
    return 1 if inputs % TOGETHER else TOGETHER


def to_matrix(weight: Tensor) -> Tensor:
    """The matrix of a linear or convolution weight.

    Columns are ordered by channel group, kernel tap, channel in the group; groups are of four channels where these
    divide the inputs, of one otherwise.

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
    >>> to_matrix(torch.arange(8.0).view(1, 4, 2)).tolist()
    [[0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]]
    """
    if weight[0, 0].numel() == 1:
        return weight.flatten(1)
    return weight.unflatten(1, (-1, together(weight.shape[1]))).movedim(2, -1).flatten(1)


def to_weight(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """The other way round: what :func:`to_matrix` made, in the weight's shape.

    Examples
    --------
    >>> import torch
    >>> weight = torch.randn(4, 8, 3, 3)
    >>> torch.equal(to_weight(to_matrix(weight), weight.shape), weight)
    True
    """
    out, inputs, *kernel = shape
    side = together(inputs)
    return matrix.view(out, inputs // side, *kernel, side).movedim(-1, 2).flatten(1, 2)
