"""Tiles of a matrix whose sides need not be multiples of the tile: edge tiles are smaller, and counted so."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def tile_sums(matrix: Tensor, height: int, width: int) -> Tensor:
    """Sum a matrix over its tiles.

    Parameters
    ----------
    matrix
        Shape (rows, cols).
    height, width
        Tile size. Tiles at the lower and right edge may be smaller.

    Returns
    -------
    Tensor
        Shape (ceil(rows / height), ceil(cols / width)).

    Examples
    --------
    >>> tile_sums(torch.ones(3, 5), 2, 4)
    tensor([[8., 2.],
            [4., 1.]])
    """
    rows, cols = matrix.shape
    if (height, width) == (1, 1):
        return matrix
    padded = pad(matrix, (0, -cols % width, 0, -rows % height))
    return padded.reshape(padded.shape[0] // height, height, padded.shape[1] // width, width).sum((1, 3))


def tile_counts(rows: int, cols: int, height: int, width: int) -> Tensor:
    """Count the weights in each tile of a (rows, cols) matrix; int64, shaped as :func:`tile_sums`.

    Examples
    --------
    >>> tile_counts(3, 5, 2, 4)
    tensor([[8, 2],
            [4, 1]])
    """
    heights = torch.full((-(-rows // height),), height)
    widths = torch.full((-(-cols // width),), width)
    heights[-1] = rows - height * (len(heights) - 1)
    widths[-1] = cols - width * (len(widths) - 1)
    return heights[:, None] * widths[None, :]


def expand_tiles(tiles: Tensor, rows: int, cols: int, height: int, width: int) -> Tensor:
    """Repeat each tile's value over its weights; the inverse view of :func:`tile_sums`.

    Examples
    --------
    >>> expand_tiles(torch.tensor([[True, False]]), 1, 5, 2, 4)
    tensor([[ True,  True,  True,  True, False]])
    """
    if (height, width) == (1, 1):
        return tiles
    return tiles.repeat_interleave(height, 0)[:rows].repeat_interleave(width, 1)[:, :cols]
