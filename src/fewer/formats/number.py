"""One description of a number format, and rounding to it: what PTQ, QAT, gradients, storage and export share."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor

from fewer.core.errors import FewerError, near_match
from fewer.formats.grids import element_bits, grid_of, split_name

__all__ = ["Coded", "Format", "parse_format", "quantize", "rounded_to"]

Granularity = Literal["tensor", "channel", "row", "block"]
Rounding = Literal["nearest", "stochastic", "feedback"]
GRANULARITIES = ("tensor", "channel", "row", "block")
ROUNDINGS = ("nearest", "stochastic", "feedback")
_BLOCKS = {"mxfp4": 32, "nvfp4": 16}  # fixed by their standards


@dataclass(frozen=True)
class Format:
    """How numbers are stored in fewer bits.

    Attributes
    ----------
    element
        A kind of :data:`~fewer.formats.grids.ELEMENTS`, with its bits where it has several widths: ``int4``, ``e4m3``.
    granularity
        What shares a scale: the whole ``tensor``; a ``channel``, which is all values with one index on the first axis
        (an output of a weight, a sample of a batch); a ``row``, which is all values along the last axis (a token);
        or a ``block`` of consecutive values of a channel.
    block
        Values in a block.
    rounding
        ``nearest``, ties to even; ``stochastic``, up or down so that the mean is the value itself; ``feedback``,
        nearest, where each value of a channel is first given the error of the one before it, so that sums are kept.

    Examples
    --------
    >>> Format("int4", "channel").bits_per_value((64, 64))
    4.5
    """

    element: str = "int8"
    granularity: Granularity = "tensor"
    block: int = 32
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        split_name(self.element)
        if self.granularity not in GRANULARITIES:
            raise FewerError(f"unknown granularity {self.granularity!r}{near_match(self.granularity, GRANULARITIES)}")
        if self.rounding not in ROUNDINGS:
            raise FewerError(f"unknown rounding {self.rounding!r}{near_match(self.rounding, ROUNDINGS)}")
        if self.block < 1:
            raise FewerError(f"a block holds at least one value; got {self.block}")
        if self.element in _BLOCKS:
            object.__setattr__(self, "granularity", "block")
            object.__setattr__(self, "block", _BLOCKS[self.element])

    def __str__(self) -> str:
        shares = f"block{self.block}" if self.granularity == "block" else self.granularity
        return ":".join([self.element, shares, self.rounding])

    def bits_per_value(self, shape: tuple[int, ...]) -> float:
        """Bits of a stored value of a tensor, its share of the scales included (fp32 unless a standard says else)."""
        values = 1
        for side in shape:
            values *= side
        groups = {"tensor": 1, "channel": shape[0], "row": values // shape[-1]}.get(self.granularity)
        if groups is None:
            groups = shape[0] * -(-(values // shape[0]) // self.block)
        kind = split_name(self.element)[0]
        scale = {"mxfp4": 8, "nvfp4": 8, "uint": 40}.get(kind, 32)  # an affine format also stores its zero point
        return element_bits(self.element) + (groups * scale + (32 if kind == "nvfp4" else 0)) / values


def parse_format(text: str) -> Format:
    """Read ``int4``, ``int4:channel``, ``int4:block16:stochastic`` or ``mxfp4``.

    Raises
    ------
    FewerError
        With the part that is not known.

    Examples
    --------
    >>> str(parse_format("int4:block16:stochastic"))
    'int4:block16:stochastic'
    """
    element, *rest = text.split(":")
    made = Format(element)
    for part in rest:
        block = re.fullmatch(r"block(\d+)", part)
        if block:
            made = replace(made, granularity="block", block=int(block[1]))
        elif part in GRANULARITIES:
            made = replace(made, granularity=cast(Granularity, part))
        elif part in ROUNDINGS:
            made = replace(made, rounding=cast(Rounding, part))
        else:
            near = near_match(part, (*GRANULARITIES, *ROUNDINGS))
            raise FewerError(f"unknown part {part!r} of the number format {text!r}{near}")
    return made


@dataclass(frozen=True, eq=False)
class Coded:
    """Numbers in a format.

    Attributes
    ----------
    codes
        uint8, in the shape of the tensor: which value of the format's grid each one is.
    scale, zero
        fp32, one for each group, shape (groups, 1); zero is None for a format without a zero point.
    format
        See :class:`Format`.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None
    format: Format

    def dense(self) -> Tensor:
        """The fp32 values that are stored."""
        grid = grid_of(self.format.element).to(self.codes.device)
        values = _grouped(grid[self.codes.long()], self.format)
        if self.zero is not None:
            values = values - self.zero
        return _ungrouped(values * self.scale, self.codes.shape, self.format)


def quantize(x: Tensor, how: Format, generator: torch.Generator | None = None) -> Coded:
    """Round a tensor to a format.

    Parameters
    ----------
    x
        Any shape, finite.
    how
        See :class:`Format`.
    generator
        Of the random numbers of stochastic rounding.

    Raises
    ------
    FewerError
        For a tensor that is not finite.

    Notes
    -----
    Scales: the largest magnitude of a group is hit exactly, with these exceptions. Binary takes the mean magnitude, and
    ternary the threshold 0.7 times the mean magnitude and the mean of those above it, the closed forms of their papers.
    The scale of mxfp4 is 2^(floor(log2 peak) - 2) as in OCP MX 1.0, section 6.3, which clips magnitudes above 6
    scales. Stochastic rounding is without bias only where nothing is clipped, so it rounds scales up, and gives binary
    and ternary the largest magnitude.

    Examples
    --------
    >>> quantize(torch.tensor([0.7, -0.3, 0.04]), Format("int4")).dense()
    tensor([ 0.7000, -0.3000,  0.0000])
    """
    if not bool(torch.isfinite(x).all()):
        raise FewerError("a tensor that holds NaN or infinity cannot be rounded to a number format")
    grouped = _grouped(x.float(), how)
    kind = split_name(how.element)[0]
    grid = grid_of(how.element).to(x.device)
    unbiased = how.rounding == "stochastic"
    zero = None
    if kind == "uint":
        scale, zero = _affine_scale(grouped, len(grid) - 1, unbiased)
    elif kind == "ternary" and how.rounding == "nearest":
        scale, codes = _ternary(grouped)
        return Coded(_ungrouped(codes, x.shape, how).to(torch.uint8), scale, None, how)
    else:
        scale = _scale(grouped, kind, float(grid.max()), unbiased)
    if how.rounding == "feedback":
        codes = _diffused(x.float(), scale, zero, grid, how)
        return Coded(codes.to(torch.uint8), scale, zero, how)
    steps = grouped / scale if zero is None else grouped / scale + zero
    codes = _stochastic(steps, grid, generator) if unbiased else _nearest(steps, grid)
    return Coded(_ungrouped(codes, x.shape, how).to(torch.uint8), scale, zero, how)


def rounded_to(x: Tensor, how: Format, generator: torch.Generator | None = None) -> Tensor:
    """The values that a tensor has in a format, in its own dtype; see :func:`quantize`.

    Examples
    --------
    >>> rounded_to(torch.tensor([1.0, -0.4]), Format("pot3"))
    tensor([ 1.0000, -0.5000])
    """
    return quantize(x, how, generator).dense().to(x.dtype)


def _grouped(x: Tensor, how: Format) -> Tensor:
    """Shape (groups, values); the last block of a channel is filled up with zeros."""
    if how.granularity == "tensor" or x.ndim == 0:
        return x.reshape(1, -1)
    if how.granularity == "row":
        return x.reshape(-1, x.shape[-1])
    rows = x.reshape(x.shape[0], -1)
    if how.granularity == "channel":
        return rows
    missing = -rows.shape[1] % how.block
    return torch.nn.functional.pad(rows, (0, missing)).reshape(-1, how.block)


def _ungrouped(values: Tensor, shape: torch.Size, how: Format) -> Tensor:
    if how.granularity == "block" and len(shape):
        columns = values.numel() // max(1, shape[0])
        values = values.reshape(shape[0], columns)[:, : shape.numel() // max(1, shape[0])]
    return values.reshape(shape)


def _scale(grouped: Tensor, kind: str, top: float, unbiased: bool) -> Tensor:
    magnitude = grouped.abs()
    peak = magnitude.amax(1, keepdim=True)
    if kind == "binary" and not unbiased:
        peak = magnitude.mean(1, keepdim=True)
    if kind == "mxfp4":
        safe = torch.where(peak > 0, peak, torch.ones_like(peak))
        power = (safe / top).log2().ceil() if unbiased else safe.log2().floor() - 2
        return power.clamp(-127, 127).exp2()
    if kind == "nvfp4":
        return _scale_of_blocks(peak, top, unbiased)
    return torch.where(peak > 0, peak / top, torch.ones_like(peak))


def _scale_of_blocks(peak: Tensor, top: float, unbiased: bool) -> Tensor:
    """Scales that are e4m3 numbers times one fp32 number for the whole tensor."""
    largest = float(peak.max()) if peak.numel() else 0.0
    if largest == 0.0:
        return torch.ones_like(peak)
    grid = grid_of("e4m3").to(peak.device)
    grid = grid[grid > 0]
    whole = largest / (top * float(grid.max()))
    steps = peak / (top * whole)
    # a block so faint that its scale would be 0 takes the smallest one there is
    index = torch.searchsorted(grid, steps * (1 - 1e-6)) if unbiased else _nearest(steps, grid)
    return grid[index.clamp(0, len(grid) - 1)] * whole


def _affine_scale(grouped: Tensor, top: int, unbiased: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero point, so that 0 is one of the values."""
    low, high = grouped.amin(1, keepdim=True).clamp(max=0), grouped.amax(1, keepdim=True).clamp(min=0)
    # one step of room lets the zero point be rounded up, and nothing is clipped
    scale = (high - low) / (top - 1 if unbiased else top)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = (-low / scale).ceil() if unbiased else (-low / scale).round()
    return scale, zero.clamp(0, top)


def _ternary(grouped: Tensor) -> tuple[Tensor, Tensor]:
    magnitude = grouped.abs()
    above = magnitude > 0.7 * magnitude.mean(1, keepdim=True)
    scale = (magnitude * above).sum(1, keepdim=True) / above.sum(1, keepdim=True).clamp(min=1)
    return torch.where(scale > 0, scale, torch.ones_like(scale)), grouped.sign() * above + 1


def _neighbours(steps: Tensor, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Index of the upper neighbour, and both neighbours."""
    upper = torch.searchsorted(grid, steps.contiguous()).clamp(1, len(grid) - 1)
    return upper, grid[upper - 1], grid[upper]


def _nearest(steps: Tensor, grid: Tensor) -> Tensor:
    upper, low, high = _neighbours(steps, grid)
    below, above = steps - low, high - steps
    zero = int((grid == 0).nonzero()[0]) if bool((grid == 0).any()) else 0
    even = (upper - zero) % 2 == 0
    return torch.where((above < below) | ((above == below) & even), upper, upper - 1)


def _stochastic(steps: Tensor, grid: Tensor, generator: torch.Generator | None) -> Tensor:
    upper, low, high = _neighbours(steps, grid)
    chance = torch.rand(steps.shape, generator=generator, device=steps.device)
    return torch.where(chance * (high - low) < steps - low, upper, upper - 1)


def _diffused(x: Tensor, scale: Tensor, zero: Tensor | None, grid: Tensor, how: Format) -> Tensor:
    """Codes of a tensor whose errors go from each value of a channel to the next."""
    rows = x.reshape(x.shape[0], -1) if x.ndim else x.reshape(1, 1)
    like = torch.ones_like(_grouped(x, how))
    scales = _ungrouped(like * scale, x.shape, how).reshape(rows.shape)
    zeros = torch.zeros_like(scales) if zero is None else _ungrouped(like * zero, x.shape, how).reshape(rows.shape)
    codes, carried = torch.empty_like(rows), torch.zeros(len(rows), device=x.device)
    for column in range(rows.shape[1]):
        wanted, scale_here, zero_here = rows[:, column] + carried, scales[:, column], zeros[:, column]
        code = _nearest(wanted / scale_here + zero_here, grid)
        codes[:, column] = code
        error = wanted - (grid[code] - zero_here) * scale_here
        # what a clipped value lacks is not handed on: it would be as large as the value itself
        carried = error.clamp(-scale_here * (grid[1] - grid[0]), scale_here * (grid[1] - grid[0]))
    return codes.reshape(x.shape)
