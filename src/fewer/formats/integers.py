"""Weights in fewer bits: what is stored, and the values that the kernels then multiply with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.core.precision import PRECISIONS
from fewer.formats.ranges import levels, row_scales

__all__ = ["BITS", "Quantized", "as_integers", "exact_scales", "quantize_rows", "rounded"]

BITS = {p.name: p.bits for p in PRECISIONS.values() if p.is_integer}
"""Bits of the precisions that are integers."""


@dataclass(frozen=True)
class Quantized:
    """A weight as integers.

    Attributes
    ----------
    values
        int8, shape (rows, columns).
    scale
        fp32, shape (rows,).
    """

    values: Tensor
    scale: Tensor

    def dense(self) -> Tensor:
        """The fp32 weight that it stands for: integer times scale, rounded once."""
        return self.values.float() * self.scale[:, None]


def quantize_rows(
    matrix: Tensor, bits: int = 8, estimator: str = "min-max", importance: Tensor | None = None
) -> Quantized:
    """Round a weight to integers, with one scale for each row (output).

    The result is what :func:`fewer.kernels.format.pack` makes of it at int8: the largest magnitude of each row is hit
    exactly, so packing the rounded weight again finds the same scale and changes nothing.

    Parameters
    ----------
    matrix
        fp32, shape (rows, columns), finite.
    bits, estimator, importance
        See :func:`~fewer.formats.ranges.row_scales`.

    Raises
    ------
    FewerError
        For a weight that is not finite.

    Examples
    --------
    >>> quantize_rows(torch.tensor([[0.64, -0.5]])).values
    tensor([[ 64, -50]], dtype=torch.int8)
    """
    if not bool(torch.isfinite(matrix).all()):
        raise FewerError("a weight that holds NaN or infinity cannot be rounded to integers")
    matrix, top = matrix.float(), levels(bits)
    scale = row_scales(matrix, bits, estimator, importance)
    values = (matrix / scale[:, None]).round().clamp(-top, top)
    return Quantized(values.to(torch.int8), scale)


def as_integers(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Scale of each row, and integers of at most 64; of at most 127 where the weight has been rounded to those.

    A weight that has been rounded before is given back exactly.

    Examples
    --------
    >>> scale, values = as_integers(torch.tensor([[127.0, -50.0]]))
    >>> scale.tolist(), values.tolist()
    ([1.0], [[127.0, -50.0]])
    """
    peak = matrix.abs().amax(1)
    for top in (levels(8), 127):
        scale = torch.where(peak > 0, peak / top, torch.ones(()))
        steps = matrix / scale[:, None]
        if bool(((steps - steps.round()).abs() < 1e-3).all()):
            return scale, steps.round()
    scale = torch.where(peak > 0, peak / levels(8), torch.ones(()))
    return scale, (matrix / scale[:, None]).round().clamp(-levels(8), levels(8))


def exact_scales(matrix: Tensor, most: Iterable[int]) -> Tensor | None:
    """Scale of each row of which all of its values are whole multiples, bit for bit; None where a row has none.

    Parameters
    ----------
    matrix
        fp32, shape (rows, columns).
    most
        What the largest magnitude of a row may be, in steps, the first choice first: a step that was learnt for a whole
        layer need not be hit by every row.

    Examples
    --------
    >>> exact_scales(torch.tensor([[7.0, -2.0], [1.5, 0.5]]), (7, 3)).tolist()
    [1.0, 0.5]
    >>> exact_scales(torch.tensor([[7.0, -2.1]]), (7,)) is None
    True
    """
    peak = matrix.abs().amax(1)
    scale, found = torch.ones_like(peak), peak == 0
    for steps in most:
        guess = peak / steps
        for toward in (0.0, torch.inf, -torch.inf):  # the scale that gave these values may be one rounding away
            tried = torch.nextafter(guess, torch.full_like(guess, toward)) if toward else guess
            exact = ((matrix / tried[:, None]).round() * tried[:, None] == matrix).all(1) & ~found
            scale, found = torch.where(exact, tried, scale), found | exact
        if bool(found.all()):
            return scale
    return None


def rounded(matrix: Tensor, precision: str, estimator: str = "min-max", importance: Tensor | None = None) -> Tensor:
    """A weight with the values that it has in a precision, as fp32.

    Parameters
    ----------
    matrix
        Shape (rows, columns).
    precision
        ``fp32``, ``bf16``, ``fp16``, ``int8`` or ``int4``.
    estimator, importance
        Of the integer formats.

    Raises
    ------
    FewerError
        For an unknown precision.

    Examples
    --------
    >>> rounded(torch.tensor([[1.0, 0.3]]), "bf16")
    tensor([[1.0000, 0.3008]])
    """
    if precision in BITS:
        return quantize_rows(matrix, BITS[precision], estimator, importance).dense()
    formats = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in formats:
        raise FewerError(f"unknown precision {precision!r}; use one of {', '.join([*formats, *BITS])}")
    return matrix.to(formats[precision]).float()
