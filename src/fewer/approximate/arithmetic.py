"""The few integer operations that every approximation is written in, on arrays and on the nodes of a graph alike.

An approximation written with these functions and with ``+ - * // << >>`` runs on int64 arrays of NumPy, and the same
code makes the ONNX nodes of :mod:`fewer.approximate.onnx`: the exported model is the same arithmetic, not a copy of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = [
    "bucket",
    "clip",
    "divide",
    "dyadic",
    "floor_root",
    "largest",
    "product",
    "rescale",
    "scaling",
    "take",
    "total",
    "unsigned",
    "where_negative",
]

Integers = Any
"""An int64 array, or a node of a graph that stands for one."""


def clip(x: Integers, low: int, high: int) -> Integers:
    """Limit to ``low .. high``, both included."""
    return x.clip(low, high)


def largest(x: Integers) -> Integers:
    """The largest of the last axis, which stays with length 1."""
    return x.max(axis=-1, keepdims=True)


def total(x: Integers) -> Integers:
    """The sum of the last axis, which stays with length 1."""
    return x.sum(axis=-1, keepdims=True)


def take(table: Sequence[int] | np.ndarray, index: Integers) -> Integers:
    """Entries of a constant table: ``table[index]``."""
    values = np.asarray(table, dtype=np.int64)
    return values[index] if isinstance(index, np.ndarray) else index.take(values)


def bucket(x: Integers, thresholds: Sequence[int]) -> Integers:
    """How many of the rising thresholds each number has reached.

    Examples
    --------
    >>> bucket(np.array([-5, 0, 7]), [0, 5])
    array([0, 1, 2])
    """
    if isinstance(x, np.ndarray):
        return np.searchsorted(np.asarray(thresholds, dtype=np.int64), x, side="right")
    count = x.reaches(int(thresholds[0]))
    for threshold in thresholds[1:]:
        count = count + x.reaches(int(threshold))
    return count


def where_negative(x: Integers, negative: Integers, other: Integers) -> Integers:
    """``negative`` where ``x < 0``, ``other`` elsewhere."""
    return np.where(x < 0, negative, other) if isinstance(x, np.ndarray) else x.choose(negative, other)


def divide(a: Integers, b: Integers | int) -> Integers:
    """Quotient rounded to the nearest integer, halves up; ``b`` is positive.

    Examples
    --------
    >>> divide(np.array([7, -7, 6]), 4)
    array([ 2, -2,  2])
    """
    return (a * 2 + b) // (b * 2)


def dyadic(factor: float, bits: int = 16) -> tuple[int, int]:
    """A factor as ``multiplier / 2**shift`` with a multiplier of at most ``bits`` bits.

    Examples
    --------
    >>> dyadic(0.75, 4)
    (12, 4)
    """
    if factor == 0 or not math.isfinite(factor):
        return 0, 0
    _, exponent = math.frexp(abs(factor))
    shift = max(0, bits - exponent)
    multiplier = round(Fraction(factor) * 2**shift)
    if abs(multiplier) >= 2**bits and shift:
        multiplier, shift = round(Fraction(factor) * 2 ** (shift - 1)), shift - 1
    return multiplier, shift


def rescale(x: Integers, factor: float, bits: int = 16) -> Integers:
    """``x`` times a dyadic number near ``factor``, rounded to the nearest integer.

    Examples
    --------
    >>> rescale(np.array([100, -100]), 0.3)
    array([ 30, -30])
    """
    multiplier, shift = dyadic(factor, bits)
    if shift == 0:
        return x * multiplier
    return (x * multiplier + (1 << (shift - 1))) >> shift


# from 4 ** i on the root is at least 2 ** i
_POWERS = [4**i for i in range(1, 31)]
_STARTS = [2 ** (i + 1) for i in range(31)]


def scaling(
    factors: np.ndarray, offsets: np.ndarray | float = 0.0, bits: int = 24
) -> tuple[np.ndarray, np.ndarray, int]:
    """Integers ``m``, ``b`` and a shift so that ``(x * m + b) >> shift`` rounds ``x * factors + offsets``.

    The factors share one shift; the largest one has ``bits`` bits.

    Examples
    --------
    >>> m, b, shift = scaling(np.array([0.5, 0.25]), np.array([1.0, 0.0]))
    >>> (np.array([10, 10]) * m + b) >> shift
    array([6, 3])
    """
    factors = np.asarray(factors, dtype=float)
    largest_factor = max(float(np.abs(factors).max()), 2.0**-30)
    shift = int(np.clip(bits - math.frexp(largest_factor)[1], 1, 44))
    m = np.rint(factors * 2.0**shift).astype(np.int64)
    b = np.rint(np.asarray(offsets, dtype=float) * 2.0**shift).astype(np.int64) + (1 << (shift - 1))
    return m, b, shift


def product(a: Integers, b: Integers) -> Integers:
    """Matrix product of integers of at most 8 bits, exact.

    On arrays it is computed by the floating-point library in a type that holds every sum exactly: single precision
    while no sum can reach 2**24, double precision otherwise.

    Examples
    --------
    >>> product(np.array([[100, -100]]), np.array([[127], [-128]]))
    array([[25500]])
    """
    if not isinstance(a, np.ndarray):
        return a.product(b)
    bound = float(np.abs(a).max(initial=0)) * float(np.abs(b).max(initial=0)) * a.shape[-1]
    kind = np.float32 if bound < 2**24 else np.float64
    return (a.astype(kind) @ b.astype(kind)).astype(np.int64)


def unsigned(x: Integers) -> Integers:
    """The same numbers, of which it is known that they are 0 .. 255."""
    return x if isinstance(x, np.ndarray) else x.as_unsigned()


def floor_root(x: Integers) -> Integers:
    """The largest integer whose square is not above ``x``; exact for ``0 <= x < 2**61``.

    Newton's iteration from a power of two above the root falls until it is there, so that the least of all steps is
    the answer. Six steps halve the start's relative error of at most 1 to below one unit for 61 bits.

    Examples
    --------
    >>> floor_root(np.array([0, 15, 16, 10**18 - 1]))
    array([        0,         3,         4, 999999999])
    """
    nothing = clip(1 - x, 0, 1)  # 1 for the root of 0, which Newton would divide by
    x = x + nothing
    root = take(_STARTS, bucket(x, _POWERS))
    for _ in range(6):
        step = (root + x // root) >> 1
        # below the root Newton goes up again by one: keep the smaller of the two
        root = root - clip(root - step, 0, 2**62)
    return root - nothing
