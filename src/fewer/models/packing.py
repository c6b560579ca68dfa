"""A weight and its mask as kept values and bits, and back, without loss."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.formats.integers import BITS, exact_scales
from fewer.formats.ranges import levels
from fewer.models.storage import mask_bytes, tile_of


def pack_mask(mask: np.ndarray, pattern: str) -> np.ndarray:
    """Bits of a boolean mask: one per weight, or one per tile for ``block:HxW``.

    Parameters
    ----------
    mask : array of bool
        In the weight's shape; True is kept.
    pattern : str
        See :func:`fewer.models.storage.tile_of`.

    Returns
    -------
    array of uint8
        :func:`fewer.models.storage.mask_bytes` long.

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
    # as fewer.patterns.to_matrix lays a weight out: input channels of a tap side by side
    matrix = np.moveaxis(mask, 1, -1).reshape(mask.shape[0], -1)
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
    matrix = _expand(tiles, height, width, (rows, cols))
    return np.moveaxis(matrix.reshape(rows, *shape[2:], shape[1]), -1, 1)


def _expand(tiles: np.ndarray, height: int, width: int, shape: tuple[int, ...]) -> np.ndarray:
    height, width = min(height, max(1, shape[0])), min(width, max(1, shape[1]))  # a tile may be larger than the weight
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


def encode_values(weight: Tensor, precision: str, mask: np.ndarray | None = None) -> dict[str, Tensor] | None:
    """The kept values of a weight in a precision, if it is exactly representable in it, else None.

    Parameters
    ----------
    weight : Tensor
        fp32; already rounded to the precision, see :func:`fewer.formats.integers.rounded`.
    precision : str
        ``bf16``, ``fp16``, ``int8`` or ``int4``.
    mask : array of bool, optional
        Which entries to keep; all by default.

    Returns
    -------
    dict or None
        ``values`` (of two or one bytes; for int4 two values in a byte), and ``scale`` (one for each row) for integers.

    Examples
    --------
    >>> encode_values(torch.tensor([[0.64, -0.5]]), "int8")["values"]
    tensor([ 64, -50], dtype=torch.int8)
    >>> encode_values(torch.tensor([[0.1]]), "bf16") is None
    True
    """
    weight = weight.detach().cpu()
    if weight.dtype != torch.float32:
        return None
    keep = np.ones(tuple(weight.shape), dtype=bool) if mask is None else mask
    if precision in _HALVES:
        half = weight.to(_HALVES[precision])
        return {"values": kept_values(half, keep)} if torch.equal(half.float(), weight) else None
    if precision not in BITS:
        return None
    matrix, top = weight.flatten(1), levels(BITS[precision])
    # kernels find the integers of int8 again by the largest magnitude of a row, which must hit the last one
    scale = exact_scales(matrix, range(top, 0, -1) if precision == "int4" else (top,))
    if scale is None:
        return None
    integers = kept_values((matrix / scale[:, None]).round().to(torch.int8).view(weight.shape), keep)
    return {"values": _nibbles(integers) if precision == "int4" else integers, "scale": scale}


def decode_values(values: Tensor, scale: Tensor | None, precision: str, mask: np.ndarray) -> Tensor:
    """The fp32 weight that :func:`encode_values` was given, with +0.0 where the mask is False.

    Raises
    ------
    FewerError
        When tensors of the wrong size or type are stored.

    Examples
    --------
    >>> decode_values(torch.tensor([127, -50], dtype=torch.int8), torch.tensor([0.01]), "int8", np.ones((1, 2), bool))
    tensor([[ 1.2700, -0.5000]])
    """
    kept = int(mask.sum())
    if precision in _HALVES:
        return unpack_weight(values, mask).float()
    if scale is None or scale.shape != mask.shape[:1]:
        raise FewerError(f"the scales of an {precision} weight with {mask.shape[0]} rows are missing or too few")
    if precision == "int4":
        if values.shape != (-(-kept // 2),):
            raise FewerError(f"{values.numel()} bytes are stored where the mask keeps {kept} int4 values")
        values = torch.stack([(values & 15), values >> 4], 1).flatten()[:kept].to(torch.int16) - 8
    dense = unpack_weight(values.float(), mask)
    return (dense.flatten(1) * scale.float()[:, None]).view(dense.shape)


_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _nibbles(values: Tensor) -> Tensor:
    """Two values from -8 to 7 in each byte, the first in the low bits."""
    shifted = (values.to(torch.int16) + 8).to(torch.uint8)
    if len(shifted) % 2:
        shifted = torch.cat([shifted, shifted.new_zeros(1)])
    return shifted[0::2] | (shifted[1::2] << 4)
