"""Softmax over the last axis, in integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fewer.approximate.arithmetic import Integers, bucket, clip, largest, take, total
from fewer.approximate.exponential import shift_exp, table_exp, two_step_exp
from fewer.approximate.method import Span, Work
from fewer.core.methods import Method, MethodTable

__all__ = ["BITS", "EXPONENTIALS", "SOFTMAXES", "Softmax"]

BITS = 16
"""Bits of a probability: more than 256 tokens share one, so that 8 would round most of them to nothing."""

Softmax = Callable[[Integers, float, Span], tuple[Integers, float]]
Exponential = Callable[[Integers, float], tuple[Integers, float]]


def _normalise(exponential: Exponential, q: Integers, scale: float) -> tuple[Integers, float]:
    e, _ = exponential(q - largest(q), scale)
    return clip((e << BITS) // total(e), 0, 2**BITS - 1), 2.0**-BITS


def polynomial_softmax(q: Integers, scale: float, span: Span = None) -> tuple[Integers, float]:
    """Softmax by :func:`~fewer.approximate.exponential.two_step_exp` and one integer division (I-BERT).

    Parameters
    ----------
    q
        Integers [..., n]; the logits are ``q * scale``.
    scale
        Of the logits.
    span
        Unused: the range of the logits does not matter.

    Returns
    -------
    (Integers, float)
        Probabilities of 16 bits, and ``2**-16``.

    Examples
    --------
    >>> p, s = polynomial_softmax(np.array([0, 1024]), 1 / 1024)
    >>> (p * s).round(2)
    array([0.27, 0.73])
    """
    return _normalise(two_step_exp, q, scale)


def shift_softmax(q: Integers, scale: float, span: Span = None) -> tuple[Integers, float]:
    """Softmax by :func:`~fewer.approximate.exponential.shift_exp` and one integer division (I-ViT's Shiftmax).

    Examples
    --------
    >>> p, s = shift_softmax(np.array([0, 1024]), 1 / 1024)
    >>> (p * s).round(2)
    array([0.28, 0.72])
    """
    return _normalise(shift_exp, q, scale)


def table_softmax(q: Integers, scale: float, span: Span = None) -> tuple[Integers, float]:
    """Softmax by :func:`~fewer.approximate.exponential.table_exp` and one integer division.

    Examples
    --------
    >>> p, s = table_softmax(np.array([0, 1024]), 1 / 1024)
    >>> (p * s).round(2)
    array([0.27, 0.73])
    """
    return _normalise(table_exp, q, scale)


# a ratio of 1.5 * 2 ** j is nearer to 2 ** (j + 1) than to 2 ** j
_HALVES = [3 << (7 + j) for j in range(BITS)]
_POWERS = [1 << (BITS - k) for k in range(BITS)] + [0]


def log2_softmax(q: Integers, scale: float, span: Span = None) -> tuple[Integers, float]:
    """Softmax rounded to powers of two, so that its product with values needs shifts alone (FQ-ViT, 2111.13824).

    The exponent is that of ``sum / e`` rounded at one and a half of a power; below ``2**-15`` it is zero.

    Examples
    --------
    >>> p, s = log2_softmax(np.array([0, 1024]), 1 / 1024)
    >>> p * s
    array([0.25, 1.  ])
    """
    e, _ = two_step_exp(q - largest(q), scale)
    e = clip(e, 1, 2**62)
    exponent = bucket((total(e) << 8) // e, _HALVES)
    return take(_POWERS, clip(exponent, 0, BITS)), 2.0**-BITS


SOFTMAXES: MethodTable[Softmax] = MethodTable(
    "softmax",
    [
        Method("table", table_softmax, "halvings and four lines of a table", "after NN-LUT (DAC 2022)"),
        Method("polynomial", polynomial_softmax, "halvings and a polynomial of degree 2", "I-BERT (ICML 2021)"),
        Method("shift", shift_softmax, "shifts alone, then one division", "I-ViT (ICCV 2023)"),
        Method("log2", log2_softmax, "powers of two: the product with values is a shift", "FQ-ViT (IJCAI 2022)"),
    ],
)
"""Every integer softmax; the first one is the default."""

EXPONENTIALS: dict[str, Exponential] = {"table": table_exp, "polynomial": two_step_exp, "shift": shift_exp}
"""What those rows divide by its sum."""

WORK: dict[str, Work] = {
    "table": Work(multiplies=1, adds=5, shifts=3, divides=2, lookups=2),
    "polynomial": Work(multiplies=2, adds=6, shifts=2, divides=2),
    "shift": Work(adds=6, shifts=6, divides=1),
    "log2": Work(multiplies=1, adds=6, shifts=2, divides=2, compares=16),
}
"""Operations for each number."""
assert set(WORK) == set(SOFTMAXES) and np.iinfo(np.int64).bits == 64
