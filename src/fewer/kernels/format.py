"""Packed block-sparse weights: plain tensors plus a small JSON header, checked when loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.formats.integers import as_integers

STRIP = 16  # rows of one strip; the same for every instruction set, so that a file moves between machines
UNIT = {"fp32": 1, "bf16": 2, "int8": 4}  # inputs in one 32-bit lane
VALUE_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
FORMAT_NAME = "fewer.block-sparse"
FORMAT_VERSION = 1
_MAX_INT8_INPUTS = 65_536  # 255 * 127 * inputs must fit into 31 bits
_MAX_UNITS = 16  # widest stored block, in units: wider blocks of a mask are stored as several


@dataclass(frozen=True)
class PackedWeight:
    """A weight matrix [out, in] of which only the blocks that hold a kept weight are stored.

    A block is 16 rows high (taller blocks of a mask are stored as several) and ``width`` inputs wide. Blocks of a
    strip of 16 rows lie one after the other in the order of their inputs.

    Attributes
    ----------
    precision : str
        ``fp32``, ``bf16`` or ``int8``.
    shape : tuple of int
        (out, in) of the dense matrix.
    width : int
        Inputs per block; a multiple of 1 (fp32), 2 (bf16) or 4 (int8).
    rowptr : Tensor int32 [strips + 1]
        First block of each strip of 16 rows.
    kidx : Tensor int32 [blocks]
        First input of each block, counted in units of 1 (fp32), 2 (bf16) or 4 (int8) inputs.
    vals : Tensor [blocks, width / unit, 16, unit]
        The weights, in the order in which the kernel reads them.
    bias : Tensor float32 [strips * 16]
        Zero where there is none.
    scale : Tensor float32 [strips * 16] or [0]
        int8 only: weight = stored integer times the scale of its row.
    """

    precision: str
    shape: tuple[int, int]
    width: int
    rowptr: Tensor
    kidx: Tensor
    vals: Tensor
    bias: Tensor
    scale: Tensor

    @property
    def blocks(self) -> int:
        """Stored blocks."""
        return self.kidx.numel()

    @property
    def strips(self) -> int:
        """Strips of 16 rows."""
        return -(-self.shape[0] // STRIP)

    @property
    def units(self) -> int:
        """Width of a block in units."""
        return self.width // UNIT[self.precision]

    @property
    def density(self) -> float:
        """Stored weights divided by all weights; padding counts as stored, so this may pass 1."""
        return self.blocks * STRIP * self.width / max(1, self.shape[0] * self.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    def meta(self) -> dict[str, Any]:
        """The JSON header that :func:`from_tensors` needs beside the tensors."""
        return {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "precision": self.precision,
            "shape": list(self.shape),
            "width": self.width,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors under the names that safetensors stores."""
        return {"rowptr": self.rowptr, "kidx": self.kidx, "vals": self.vals, "bias": self.bias, "scale": self.scale}


def _as_element_mask(mask: Tensor, shape: tuple[int, int]) -> Tensor:
    if mask.dtype != torch.bool:
        raise FewerError(f"the mask has dtype {mask.dtype}; it must be torch.bool, True where a weight is kept")
    if tuple(mask.shape) != shape:
        raise FewerError(f"the mask has shape {tuple(mask.shape)} but the weight has {shape}; they must be equal")
    return mask.contiguous()


def _tiles(matrix: Tensor, width: int) -> Tensor:
    """[out, in] -> [strips, blocks per strip, 16, width], zero-padded."""
    rows, cols = matrix.shape
    padded = torch.nn.functional.pad(matrix, (0, -cols % width, 0, -rows % STRIP))
    return padded.reshape(padded.shape[0] // STRIP, STRIP, padded.shape[1] // width, width).permute(0, 2, 1, 3)


def best_width(mask: Tensor, precision: str) -> int:
    """The block width that makes the product of a masked weight cheapest.

    Wider blocks cost less bookkeeping, narrower ones skip more. The cost of a block is its width in units plus
    a quarter of a unit for its index.

    Parameters
    ----------
    mask : Tensor bool [out, in]
        True where a weight is kept.
    precision : str
        ``fp32``, ``bf16`` or ``int8``.

    Examples
    --------
    >>> import torch
    >>> mask = torch.zeros(32, 32, dtype=torch.bool)
    >>> mask[:16, 4:8] = True
    >>> best_width(mask, "fp32"), best_width(mask, "int8")
    (4, 4)
    """
    unit = unit_of(precision)
    best, best_cost = unit, float("inf")
    inputs = mask.shape[1]
    units = 1
    while units <= _MAX_UNITS and (units == 1 or units * unit < 2 * inputs):
        # A width that does not divide the inputs forces a copy of fp32 activations: 5 % of a dense product.
        ragged = 1.05 if inputs % (units * unit) else 1.0
        stored = int(_tiles(mask, units * unit).flatten(2).any(2).sum())
        cost = stored * (units + 0.25) * ragged
        if cost < best_cost:
            best, best_cost = units * unit, cost
        units *= 2
    return best


def unit_of(precision: str) -> int:
    """Inputs in one 32-bit lane of a kernel, or an error that names the known precisions."""
    if precision not in UNIT:
        raise FewerError(f"unknown precision {precision!r}; choose one of {', '.join(UNIT)}")
    return UNIT[precision]


def pack(
    weight: Tensor,
    mask: Tensor | None = None,
    *,
    precision: str = "fp32",
    width: int | None = None,
    bias: Tensor | None = None,
) -> PackedWeight:
    """Pack a dense weight and its mask.

    Weights outside of the mask are stored as zero when they share a block with a kept one, so the product is that of
    the masked weight for any mask; only masks with whole empty blocks of 16 rows become faster.

    Parameters
    ----------
    weight : Tensor float [out, in]
        Dense weight.
    mask : Tensor bool [out, in], optional
        True where a weight is kept; None keeps all.
    precision : str
        ``fp32`` (exact), ``bf16`` (round to nearest even) or ``int8`` (symmetric, one scale per output row).
    width : int, optional
        Inputs per block; None chooses the cheapest (:func:`best_width`).
    bias : Tensor float [out], optional
        Added to the product.

    Raises
    ------
    FewerError
        For a wrong dtype, shape, precision or width, and for int8 weights that are not finite.

    Examples
    --------
    >>> import torch
    >>> weight = torch.randn(32, 8)
    >>> mask = torch.zeros(32, 8, dtype=torch.bool)
    >>> mask[:16, :4] = True
    >>> packed = pack(weight, mask)
    >>> packed.blocks, bool((unpack(packed) == weight * mask).all())
    (1, True)
    """
    unit = unit_of(precision)
    if weight.ndim != 2 or not weight.is_floating_point():
        raise FewerError(f"a weight to pack is a float matrix [out, in]; got {weight.dtype} {tuple(weight.shape)}")
    shape = (int(weight.shape[0]), int(weight.shape[1]))
    if min(shape) < 1:
        raise FewerError(f"a weight of shape {shape} is empty and cannot be packed")
    weight = weight.detach().to("cpu", torch.float32)
    if mask is None:
        mask = torch.ones(shape, dtype=torch.bool)
    assert mask is not None
    mask = _as_element_mask(mask.detach().cpu(), shape)
    if width is None:
        width = best_width(mask, precision)
    if width < 1 or width % unit or width > _MAX_UNITS * unit:
        raise FewerError(
            f"a block width of {width} does not work for {precision}: it must be a multiple of {unit} and at most "
            f"{_MAX_UNITS * unit}; use {min(_MAX_UNITS * unit, max(unit, width // unit * unit))}"
        )
    # where, not a product: a pruned infinity must become zero, not NaN
    weight = torch.where(mask, weight, 0.0)
    strips = -(-shape[0] // STRIP)
    scale = torch.zeros(0)
    values = weight
    if precision == "int8":
        if shape[1] > _MAX_INT8_INPUTS:
            raise FewerError(f"int8 sums overflow above {_MAX_INT8_INPUTS} inputs; this layer has {shape[1]}: use bf16")
        if not bool(torch.isfinite(weight).all()):
            raise FewerError("int8 packing needs finite weights, but the weight holds NaN or infinity: use bf16")
        row_scale, values = as_integers(weight)
        scale = torch.nn.functional.pad(row_scale, (0, strips * STRIP - shape[0]), value=1.0)
    kept = _tiles(mask, width).flatten(2).any(2)  # [strips, blocks per strip]
    rowptr = torch.zeros(strips + 1, dtype=torch.int32)
    rowptr[1:] = kept.sum(1).cumsum(0)
    kidx = kept.nonzero()[:, 1].to(torch.int32) * (width // unit)
    blocks = _tiles(values, width)[kept].to(VALUE_DTYPE[precision])  # [blocks, 16, width]
    vals = blocks.reshape(-1, STRIP, width // unit, unit).permute(0, 2, 1, 3).contiguous()
    padded_bias = torch.zeros(strips * STRIP)
    if bias is not None:
        if tuple(bias.shape) != (shape[0],):
            raise FewerError(f"the bias has shape {tuple(bias.shape)}; a weight of shape {shape} needs ({shape[0]},)")
        padded_bias[: shape[0]] = bias.detach().to("cpu", torch.float32)
    return PackedWeight(precision, shape, width, rowptr, kidx.contiguous(), vals, padded_bias, scale)


def unpack(packed: PackedWeight) -> Tensor:
    """The dense fp32 weight [out, in] that a packed one stands for.

    Exactly the masked weight for fp32; its rounded values for bf16 and int8.

    Examples
    --------
    >>> import torch
    >>> bool((unpack(pack(torch.eye(20))) == torch.eye(20)).all())
    True
    """
    width, (rows, cols) = packed.width, packed.shape
    per_strip = -(-cols // width)
    grid = torch.zeros(packed.strips * per_strip, STRIP, width)
    grid[_block_index(packed)] = packed.vals.permute(0, 2, 1, 3).reshape(-1, STRIP, width).float()
    dense = grid.reshape(packed.strips, per_strip, STRIP, width).permute(0, 2, 1, 3)
    dense = dense.reshape(packed.strips * STRIP, per_strip * width)
    if packed.precision == "int8":
        dense = dense * packed.scale[:, None]
    return dense[:rows, :cols].contiguous()


def stored_mask(packed: PackedWeight) -> Tensor:
    """True for every weight [out, in] whose block is stored."""
    rows, cols = packed.shape
    per_strip = -(-cols // packed.width)
    grid = torch.zeros(packed.strips * per_strip, dtype=torch.bool)
    grid[_block_index(packed)] = True
    full = grid.reshape(packed.strips, per_strip).repeat_interleave(STRIP, 0).repeat_interleave(packed.width, 1)
    return full[:rows, :cols].contiguous()


def _block_index(packed: PackedWeight) -> Tensor:
    counts = (packed.rowptr[1:] - packed.rowptr[:-1]).long()
    strip = torch.repeat_interleave(torch.arange(packed.strips), counts)
    return strip * -(-packed.shape[1] // packed.width) + packed.kidx.long() // packed.units


def from_tensors(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> PackedWeight:
    """Rebuild and check a packed weight, for example after reading it from safetensors.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        ``rowptr``, ``kidx``, ``vals``, ``bias``, ``scale``.
    meta : mapping
        The header :meth:`PackedWeight.meta` gave.

    Raises
    ------
    FewerError
        When anything is missing, of a wrong type or size, or points outside of the matrix.

    Examples
    --------
    >>> import torch
    >>> packed = pack(torch.ones(16, 4))
    >>> from_tensors(packed.tensors(), packed.meta()).blocks == packed.blocks
    True
    """
    if meta.get("format") != FORMAT_NAME or meta.get("version") != FORMAT_VERSION:
        raise FewerError(
            f"this is not a packed weight of format {FORMAT_NAME} version {FORMAT_VERSION}: "
            f"the header says {meta.get('format')!r} version {meta.get('version')!r}"
        )
    missing = [name for name in ("rowptr", "kidx", "vals", "bias", "scale") if name not in tensors]
    if missing:
        raise FewerError(f"a packed weight lacks {', '.join(missing)}; save all of PackedWeight.tensors()")
    shape, width, precision = meta.get("shape"), meta.get("width"), meta.get("precision")
    if not isinstance(shape, list | tuple) or len(shape) != 2 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise FewerError(f"the header of a packed weight has shape {shape!r}; it must be two positive integers")
    unit = unit_of(precision if isinstance(precision, str) else repr(precision))
    if not isinstance(width, int) or width < 1 or width % unit or width > _MAX_UNITS * unit:
        raise FewerError(f"the header of a packed {precision} weight has block width {width!r}")
    names = ("rowptr", "kidx", "vals", "bias", "scale")
    packed = PackedWeight(
        str(precision), (shape[0], shape[1]), width, *(tensors[name].detach().cpu().contiguous() for name in names)
    )
    check(packed)
    return packed


def check(packed: PackedWeight) -> None:
    """Raise :class:`FewerError` unless a packed weight is safe to multiply with."""
    unit, strips = UNIT[packed.precision], packed.strips

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise FewerError(f"a packed weight of shape {packed.shape} is corrupted: {what}; pack the layer again")

    require(packed.rowptr.dtype == torch.int32 and packed.kidx.dtype == torch.int32, "its indices are not int32")
    require(packed.vals.dtype == VALUE_DTYPE[packed.precision], f"its values have dtype {packed.vals.dtype}")
    require(tuple(packed.rowptr.shape) == (strips + 1,), f"rowptr has shape {tuple(packed.rowptr.shape)}")
    require(packed.kidx.ndim == 1, f"kidx has shape {tuple(packed.kidx.shape)}")
    expected = (packed.blocks, packed.units, STRIP, unit)
    require(tuple(packed.vals.shape) == expected, f"vals has shape {tuple(packed.vals.shape)}, not {expected}")
    require(packed.bias.dtype == torch.float32, f"bias has dtype {packed.bias.dtype}")
    require(tuple(packed.bias.shape) == (strips * STRIP,), f"bias has shape {tuple(packed.bias.shape)}")
    scales = strips * STRIP if packed.precision == "int8" else 0
    require(packed.scale.dtype == torch.float32, f"scale has dtype {packed.scale.dtype}")
    require(tuple(packed.scale.shape) == (scales,), f"scale has shape {tuple(packed.scale.shape)}")
    rowptr, kidx = packed.rowptr.long(), packed.kidx.long()
    require(int(rowptr[0]) == 0 and int(rowptr[-1]) == packed.blocks, "rowptr does not span the blocks")
    require(bool((rowptr[1:] >= rowptr[:-1]).all()), "rowptr is not monotone")
    if packed.blocks:
        limit = -(-packed.shape[1] // packed.width) * packed.units
        require(bool((kidx >= 0).all()) and int(kidx.max()) < limit, "kidx points outside of the inputs")
        require(bool((kidx % packed.units == 0).all()), "kidx does not start on a block")
        index = _block_index(packed)
        require(bool((index[1:] > index[:-1]).all()), "the blocks of a strip are not in order")
    if packed.precision == "int8":
        require(packed.shape[1] <= _MAX_INT8_INPUTS, "it has too many inputs for int8")
