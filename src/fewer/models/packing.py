"""A weight and its mask as kept values and bits, and back, without loss."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.cost.storage import mask_bytes, tile_of


def pack_mask(mask: np.ndarray, pattern: str) -> np.ndarray:
    """Bits of a boolean mask: one per weight, or one per tile for ``block:HxW``.

    Parameters
    ----------
    mask : array of bool
        In the weight's shape; True is kept.
    pattern : str
        See :func:`fewer.cost.storage.tile_of`.

    Returns
    -------
    array of uint8
        :func:`fewer.cost.storage.mask_bytes` long.

    Raises
    ------
    FewerError
        When a tile is neither wholly kept nor wholly pruned.

    Examples
    --------
    >>> pack_mask(np.array([[True, True, False, False]]), "block:1x2")
    array([128], dtype=uint8)
    """
    height, width = tile_of(pattern)
    matrix = mask.reshape(mask.shape[0], -1)
    tiles = np.logical_or.reduceat(matrix, np.arange(0, matrix.shape[0], height), axis=0)
    tiles = np.logical_or.reduceat(tiles, np.arange(0, matrix.shape[1], width), axis=1)
    if not np.array_equal(_expand(tiles, height, width, matrix.shape), matrix):
        raise FewerError(f"the mask of a weight of shape {mask.shape} keeps only a part of some {pattern} tile")
    return np.packbits(tiles.reshape(-1))


def unpack_mask(bits: np.ndarray, shape: tuple[int, ...], pattern: str) -> np.ndarray:
    """The boolean mask of a weight of the given shape, from :func:`pack_mask`'s bits.

    Raises
    ------
    FewerError
        When there are too many or too few bytes.

    Examples
    --------
    >>> unpack_mask(np.array([128], np.uint8), (1, 4), "block:1x2")
    array([[ True,  True, False, False]])
    """
    if bits.shape != (mask_bytes(shape, pattern),):
        raise FewerError(
            f"the stored mask has {bits.size} bytes; a weight of shape {shape} needs {mask_bytes(shape, pattern)}"
        )
    height, width = tile_of(pattern)
    rows, cols = shape[0], math.prod(shape[1:])
    grid = (math.ceil(rows / height), math.ceil(cols / width))
    tiles = np.unpackbits(bits, count=grid[0] * grid[1]).astype(bool).reshape(grid)
    return _expand(tiles, height, width, (rows, cols)).reshape(shape)


def _expand(tiles: np.ndarray, height: int, width: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.repeat(np.repeat(tiles, height, axis=0), width, axis=1)[: shape[0], : shape[1]]


def kept_values(weight: Tensor, mask: np.ndarray) -> Tensor:
    """The kept entries of a weight in row-major order."""
    return weight.detach().cpu().reshape(-1)[torch.from_numpy(mask.reshape(-1))].contiguous()


def unpack_weight(values: Tensor, mask: np.ndarray) -> Tensor:
    """The weight with the kept values in their places and +0.0 elsewhere.

    Raises
    ------
    FewerError
        When the number of values is not that of kept entries.

    Examples
    --------
    >>> unpack_weight(torch.tensor([5.0]), np.array([[False, True]]))
    tensor([[0., 5.]])
    """
    kept = int(mask.sum())
    if values.shape != (kept,):
        raise FewerError(f"{values.numel()} values are stored where the mask keeps {kept}")
    weight = torch.zeros(mask.shape, dtype=values.dtype)
    weight.view(-1)[torch.from_numpy(mask.reshape(-1))] = values
    return weight
