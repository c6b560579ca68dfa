"""Native kernels of integer networks: another scale behind a product of bytes, softmax, LayerNorm. For inference.

What they compute is specified by :mod:`fewer.approximate`, bit for bit; functions of single integers come to them as
tables that the specification itself has filled.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from fewer.kernels import guard, native

__all__ = ["Exponential", "Lookup", "Scaling", "has_integer_kernels", "integer_norm", "integer_softmax", "rescaled"]


def has_integer_kernels() -> bool:
    """Whether the native library is built and has these kernels."""
    found = native.load()
    return found is not None and len(found.integers) == 3


@dataclass(frozen=True, eq=False)
class Scaling:
    """``(x * multiply + add) >> shift`` with a factor for each column, or for each head.

    Attributes
    ----------
    multiply : Tensor int32
        At most 24 bits, so that products of accumulators stay in 64.
    add : Tensor int64
        Of the same length.
    shift : int
        0 to 62.
    """

    multiply: Tensor
    add: Tensor
    shift: int

    def check(self, length: int) -> None:
        """Raise a :class:`~fewer.core.errors.FewerError` unless there are so many factors."""

        def check() -> None:
            guard.vector(self.multiply, length, "the factor of a scale", torch.int32)
            guard.vector(self.add, length, "the offset of a scale", torch.int64)
            guard.need(0 <= self.shift <= 62, f"a shift by {self.shift} bits")

        guard.once([self.multiply, self.add], (length, self.shift), check)


@dataclass(frozen=True, eq=False)
class Lookup:
    """A function of an integer: ``table[x - low]``; below and above the table its ends.

    Attributes
    ----------
    table : Tensor int8
        Results.
    low : int
        The first input.
    """

    table: Tensor
    low: int


@dataclass(frozen=True, eq=False)
class Exponential:
    """Exponentials of integers that are 0, 1, ... below the largest: a table, or four lines that are halved.

    Attributes
    ----------
    table : Tensor int32
        For 0, 1, ...; the last one is for all that are farther below.
    halving : int
        0, or the distance after which an exponential is half as large. Then the lines are used, which are quicker than
        the table; they have to give the same numbers.
    slopes, intercepts : Tensor int32 [4], optional
        Of the lines, in units of 1/256 and of 1.
    """

    table: Tensor
    halving: int = 0
    slopes: Tensor | None = None
    intercepts: Tensor | None = None

    def check(self) -> None:
        """Raise a :class:`~fewer.core.errors.FewerError` unless the numbers are exponentials."""
        lines = [] if self.slopes is None or self.intercepts is None else [self.slopes, self.intercepts]
        guard.once([self.table, *lines], (self.halving,), self._check)

    def _check(self) -> None:
        guard.vector(self.table, self.table.numel(), "the table of exponentials", torch.int32)
        guard.need(self.table.numel() > 0 and int(self.table[0]) > 0, "a table of exponentials without a largest one")
        guard.need(int(self.table.min()) >= 0, "a negative exponential")
        guard.sizes(self.table.numel())
        if self.halving:
            guard.need(4 <= self.halving <= 1 << 15, f"a halving after {self.halving}")
            guard.need(self.slopes is not None and self.intercepts is not None, "lines without slopes or intercepts")
            for line in (self.slopes, self.intercepts):
                assert line is not None
                guard.vector(line, 4, "the lines", torch.int32)
                guard.need(int(line.abs().max()) <= 1 << 21, "a steep line")


def _rows(x: Tensor, dtype: torch.dtype = torch.int32) -> Tensor:
    """Integers [rows, width] that lie side by side."""
    if x.ndim != 2 or not 0 < x.shape[1] < 2**31:
        guard.need(False, f"rows of shape {tuple(x.shape)}")
    return guard.vector(x.contiguous(), x.numel(), "the rows", dtype)


def _call(name: str, arguments: ctypes.Structure) -> None:
    functions = native.library().integers
    if name not in functions:
        guard.need(False, f"this build of the library has no integer {name}; build it again")
    status = functions[name](ctypes.byref(arguments))
    if status:
        native.call(status, f"integer {name}")


def rescaled(x: Tensor, scaling: Scaling, *, lookup: Lookup | None = None, residual: Tensor | None = None) -> Tensor:
    """Accumulators of a product of bytes at the scale that the next layer reads.

    Parameters
    ----------
    x : Tensor int32 [rows, width]
        Accumulators.
    scaling : Scaling
        A factor for each column.
    lookup : Lookup, optional
        An activation behind the new scale.
    residual : Tensor int32 [rows, width], optional
        What the result is added to.

    Returns
    -------
    Tensor
        int8 within -127 .. 127, or of the table; int32 with a residual.

    Raises
    ------
    FewerError
        For wrong types or shapes.

    Examples
    --------
    >>> half = Scaling(torch.tensor([1, 1], dtype=torch.int32), torch.zeros(2, dtype=torch.int64), 1)
    >>> rescaled(torch.tensor([[10, 900]], dtype=torch.int32), half).tolist()  # doctest: +SKIP
    [[5, 127]]
    """
    x = _rows(x)
    guard.need(lookup is None or residual is None, "a table and a residual exclude each other")
    rows, width = x.shape
    scaling.check(width)
    y = torch.empty(rows, width, dtype=torch.int8 if residual is None else torch.int32)
    if lookup is not None:
        guard.vector(lookup.table, lookup.table.numel(), "the table", torch.int8)
        guard.sizes(lookup.low, lookup.low + lookup.table.numel())
        guard.need(lookup.table.numel() > 0, "an empty table")
    if residual is not None:
        residual = _rows(residual)
        guard.need(residual.shape == x.shape, f"a residual of {tuple(residual.shape)} for {tuple(x.shape)}")
    _call(
        "affine",
        native.IntegerAffineStruct(
            x.data_ptr(),
            scaling.multiply.data_ptr(),
            scaling.add.data_ptr(),
            scaling.shift,
            None if lookup is None else lookup.table.data_ptr(),
            0 if lookup is None else lookup.low,
            0 if lookup is None else lookup.table.numel(),
            None if residual is None else residual.data_ptr(),
            y.data_ptr(),
            rows,
            width,
            torch.get_num_threads(),
        ),
    )
    return y


def integer_softmax(x: Tensor, scaling: Scaling, exponential: Exponential, group_rows: int) -> Tensor:
    """Softmax over the last dimension.

    Parameters
    ----------
    x : Tensor int32 [rows, width]
        Products of queries and keys.
    scaling : Scaling
        A factor for each head; rows of one head follow each other.
    exponential : Exponential
        Of logits below the largest of their row.
    group_rows : int
        Rows of a head.

    Returns
    -------
    Tensor uint16 [rows, width]
        Probabilities in units of ``2**-16``.

    Raises
    ------
    FewerError
        For wrong types or shapes, and for exponentials that are negative or all zero.

    Examples
    --------
    >>> one = Scaling(torch.ones(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int64), 0)
    >>> halves = Exponential(torch.tensor([4, 2, 1, 0], dtype=torch.int32))
    >>> x = torch.tensor([[7, 6, 7, 0]], dtype=torch.int32)
    >>> integer_softmax(x, one, halves, 1).tolist()  # doctest: +SKIP
    [[26214, 13107, 26214, 0]]
    """
    x = _rows(x)
    rows, width = x.shape
    scaling.check(scaling.multiply.numel())
    exponential.check()
    guard.need(group_rows > 0 and scaling.multiply.numel() > 0, f"heads of {group_rows} rows")
    guard.sizes(scaling.multiply.numel())
    slopes, intercepts = exponential.slopes, exponential.intercepts
    reach = exponential.table.numel() - 1
    y = torch.empty(rows, width, dtype=torch.uint16)
    _call(
        "softmax",
        native.IntegerSoftmaxStruct(
            x.data_ptr(),
            scaling.multiply.data_ptr(),
            scaling.add.data_ptr(),
            scaling.shift,
            scaling.multiply.numel(),
            group_rows,
            exponential.table.data_ptr(),
            min(reach, 30 * exponential.halving) if exponential.halving else reach,
            exponential.halving,
            None if slopes is None else slopes.data_ptr(),
            None if intercepts is None else intercepts.data_ptr(),
            y.data_ptr(),
            rows,
            width,
            torch.get_num_threads(),
        ),
    )
    return y


def integer_norm(
    x: Tensor, scaling: Scaling, *, powers: Tensor | None = None, centre: bool = True, wide: bool = False
) -> Tensor:
    """LayerNorm over the last dimension, at the scale that the next layer reads.

    Parameters
    ----------
    x : Tensor int32 [rows, width]
        The residual stream.
    scaling : Scaling
        The affine part, for normalised numbers with 10 bits behind the point.
    powers : Tensor int32 [width], optional
        Numbers are first rounded to a byte times two to this power, 0 to 15.
    centre : bool
        False for RMSNorm.
    wide : bool
        int32 results that are not limited, in place of bytes.

    Returns
    -------
    Tensor
        int8 within -127 .. 127, or int32.

    Raises
    ------
    FewerError
        For wrong types or shapes.

    Examples
    --------
    >>> one = Scaling(torch.ones(4, dtype=torch.int32), torch.zeros(4, dtype=torch.int64), 4)
    >>> x = torch.tensor([[-1000, 0, 1000, 2000]], dtype=torch.int32)
    >>> integer_norm(x, one).tolist()  # doctest: +SKIP
    [[-86, -29, 28, 85]]
    """
    x = _rows(x)
    rows, width = x.shape
    scaling.check(width)
    if powers is not None:
        guard.vector(powers, width, "the powers", torch.int32)
    y = torch.empty(rows, width, dtype=torch.int32 if wide else torch.int8)
    _call(
        "norm",
        native.IntegerNormStruct(
            x.data_ptr(),
            None if powers is None else powers.data_ptr(),
            int(centre),
            scaling.multiply.data_ptr(),
            scaling.add.data_ptr(),
            scaling.shift,
            None if wide else y.data_ptr(),
            y.data_ptr() if wide else None,
            rows,
            width,
            torch.get_num_threads(),
        ),
    )
    return y
