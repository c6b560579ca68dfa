"""GELU and SiLU, number by number, in integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fewer.approximate.arithmetic import Integers, clip, where_negative
from fewer.approximate.exponential import shift_exp
from fewer.approximate.method import Span, Work
from fewer.approximate.piecewise import Table, fit_table
from fewer.core.methods import Method, MethodTable

__all__ = ["ACTIVATIONS", "TARGETS", "Activation", "exact_gelu", "exact_silu"]

Activation = Callable[[Integers, float, Span], tuple[Integers, float]]

_ERF_BITS = 14
_SEGMENTS = 16


def exact_gelu(x: np.ndarray) -> np.ndarray:
    """``x Phi(x)`` in double precision.

    Examples
    --------
    >>> exact_gelu(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.8413])
    """
    return x * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(np.asarray(x) / math.sqrt(2)))


def exact_silu(x: np.ndarray) -> np.ndarray:
    """``x / (1 + exp(-x))`` in double precision."""
    x = np.asarray(x, dtype=float)
    return x * 0.5 * (1 + np.tanh(x / 2))


def _by_erf(q: Integers, magnitude: Integers, scale: float) -> tuple[Integers, float]:
    """``x / 2 (1 + sign erf)`` from the magnitude of the error function in 14 bits."""
    one = 1 << _ERF_BITS
    erf = where_negative(q, 0 - magnitude, magnitude)
    return (q * (erf + one)) >> (_ERF_BITS - 3), scale / 16


def integer_gelu(q: Integers, scale: float, span: Span = None) -> tuple[Integers, float]:
    """GELU by a polynomial of degree 2 for the error function (I-BERT, arXiv 2101.01321, section 3.4).

    ``erf(u)`` is near ``sign(u) (1 - 0.2888 (min(|u|, 1.769) - 1.769)**2)``. The error is at most 1.82e-2.

    Parameters
    ----------
    q
        Integers; the numbers are ``q * scale``.
    scale
        Of the input.
    span
        Unused.

    Returns
    -------
    (Integers, float)
        Integers and their scale.

    Examples
    --------
    >>> y, s = integer_gelu(np.array([-1024, 0, 1024]), 1 / 1024)
    >>> (y * s).round(2)
    array([-0.16,  0.  ,  0.84])
    """
    edge = max(1, round(1.769 * math.sqrt(2) / scale))
    t = edge - clip(where_negative(q, 0 - q, q), 0, edge)
    # 0.2888 t**2 scale**2 / 2 in 14 bits, as a product and a shift
    factor = 0.2888 * scale * scale / 2 * 2**_ERF_BITS
    shift = max(0, 14 - math.frexp(factor)[1])
    drop = (t * t * round(factor * 2**shift)) >> shift
    return _by_erf(q, (1 << _ERF_BITS) - drop, scale)


@lru_cache(maxsize=256)
def _fit_fourth(low: float, high: float) -> tuple[float, float]:
    """``a`` and ``b`` of ``erf(u) = 1 - a (b - min(u, b))**4`` that fit GELU best on a range, by least squares."""
    x = np.linspace(low, high, 801)
    u, weight = np.abs(x) / math.sqrt(2), np.abs(x) / 2
    erf = np.vectorize(math.erf, otypes=[float])(u)
    best = (math.inf, 1.0, 1.0)
    for b in np.linspace(1.0, 4.5, 141):
        basis = (b - np.minimum(u, b)) ** 4 * weight
        wanted = (1 - erf) * weight
        a = float(basis @ wanted / max(basis @ basis, 1e-12))
        error = float(((a * basis - wanted) ** 2).sum())
        best = min(best, (error, a, float(b)))
    return best[1], best[2]


def polynomial_gelu(q: Integers, scale: float, span: Span = (-6.0, 6.0)) -> tuple[Integers, float]:
    """GELU by a fourth power whose two numbers fit the range that calibration saw.

    After the data-aware polynomial of IPTQ-ViT (arXiv 2511.15369): the error function is near
    ``sign(u) (1 - a (min(|u|, b) - b)**4)``. Here GELU's own error is what is least, not that of the error function,
    and ``b`` is searched for on a grid.

    Examples
    --------
    >>> y, s = polynomial_gelu(np.array([-1024, 0, 1024]), 1 / 1024, (-3.0, 3.0))
    >>> (y * s).round(2)
    array([-0.16,  0.  ,  0.84])
    """
    low, high = (float(v) for v in (span or (-6.0, 6.0)))
    a, b = _fit_fourth(round(min(low, -0.5), 2), round(max(high, 0.5), 2))
    edge = max(1, round(b * math.sqrt(2) / scale))
    t = edge - clip(where_negative(q, 0 - q, q), 0, edge)
    # both squares are kept to 14 bits
    first = max(0, 2 * edge.bit_length() - 14)
    square = (t * t) >> first
    factor = a * (scale * scale / 2 * 2**first) ** 2 * 2**_ERF_BITS
    shift = max(0, 14 - math.frexp(factor)[1])
    drop = (square * square * round(factor * 2**shift)) >> shift
    return _by_erf(q, (1 << _ERF_BITS) - drop, scale)


def _gate(q: Integers, y: Integers, scale: float) -> tuple[Integers, float]:
    """``q`` times the sigmoid of ``y``, both of one scale, by shifts and one division."""
    top = clip(y, 0, 2**40)
    up, _ = shift_exp(y - top, scale)
    down, _ = shift_exp(0 - top, scale)
    sigmoid = (up << _ERF_BITS) // (up + down)
    return (q * sigmoid) >> (_ERF_BITS - 4), scale / 16


def shift_gelu(q: Integers, scale: float, span: Span = None) -> tuple[Integers, float]:
    """GELU as ``x sigmoid(1.702 x)`` by shifts and one division (I-ViT, arXiv 2207.01405).

    1.702 is 1 + 1/2 + 1/8 + 1/16. Each number is held against zero here, where the paper takes the largest of a row.

    Examples
    --------
    >>> y, s = shift_gelu(np.array([-1024, 0, 1024]), 1 / 1024)
    >>> (y * s).round(2)
    array([-0.16,  0.  ,  0.84])
    """
    return _gate(q, q + (q >> 1) + (q >> 3) + (q >> 4), scale)


def shift_silu(q: Integers, scale: float, span: Span = None) -> tuple[Integers, float]:
    """SiLU by shifts and one division, as :func:`shift_gelu`.

    Examples
    --------
    >>> y, s = shift_silu(np.array([0, 1024]), 1 / 1024)
    >>> (y * s).round(1)
    array([0. , 0.7])
    """
    return _gate(q, q, scale)


@lru_cache(maxsize=64)
def _table(name: str, low: float, high: float) -> Table:
    function = {"gelu": exact_gelu, "silu": exact_silu}[name]
    return fit_table(function, (low, high), _SEGMENTS, ((0.0, 0.0), (1.0, 0.0)))


def _span(span: Span, widest: float) -> tuple[float, float]:
    """The part of a range that the function bends in, in tenths so that few tables are made."""
    low, high = span or (-widest, widest)
    # one more on both sides: beyond the lines stand 0 and the number itself, which fit far from 0 only
    low, high = math.floor(min(low, -1) * 10) / 10 - 1, math.ceil(max(high, 1) * 10) / 10 + 1
    return max(-widest, low), min(widest, high)


def table_gelu(q: Integers, scale: float, span: Span = None) -> tuple[Integers, float]:
    """GELU by 16 lines whose breakpoints make the largest error least, on the range that calibration saw.

    On [-5, 5] the error is below 4e-3, where 16 equal parts of [-4, 4] have 2.3e-2. Outside of it 0 or the number
    itself. Other authors search for breakpoints genetically (GQA-LUT, DAC 2024); here they are found by bisection.

    Examples
    --------
    >>> y, s = table_gelu(np.array([-1024, 1024]), 1 / 1024)
    >>> (y * s).round(2)
    array([-0.16,  0.84])
    """
    return _table("gelu", *_span(span, 5.0)).integers(q, scale)


def table_silu(q: Integers, scale: float, span: Span = None) -> tuple[Integers, float]:
    """SiLU by 16 lines, as :func:`table_gelu`.

    Examples
    --------
    >>> y, s = table_silu(np.array([-1024, 1024]), 1 / 1024)
    >>> (y * s).round(2)
    array([-0.27,  0.73])
    """
    return _table("silu", *_span(span, 8.0)).integers(q, scale)


ACTIVATIONS: MethodTable[Activation] = MethodTable(
    "activation",
    [
        Method("table-gelu", table_gelu, "16 lines with breakpoints where they are needed", "after NN-LUT (DAC 2022)"),
        Method("polynomial-gelu", polynomial_gelu, "a fourth power fitted to the range", "IPTQ-ViT (2025)"),
        Method("integer-gelu", integer_gelu, "a polynomial of degree 2 for erf", "I-BERT (ICML 2021)"),
        Method("shift-gelu", shift_gelu, "x sigmoid(1.702 x) by shifts and a division", "I-ViT (ICCV 2023)"),
        Method("table-silu", table_silu, "SiLU by 16 lines", "after NN-LUT (DAC 2022)"),
        Method("shift-silu", shift_silu, "SiLU by shifts and a division", "after I-ViT (ICCV 2023)"),
    ],
)
"""Every integer activation; the first one is the default."""

TARGETS = {name: exact_silu if name.endswith("silu") else exact_gelu for name in ACTIVATIONS}
"""What each row stands for, in double precision."""

_TABLE = Work(multiplies=1, adds=1, shifts=1, lookups=2, compares=_SEGMENTS + 1)
_SHIFTS = Work(multiplies=1, adds=16, shifts=18, divides=3)
WORK: dict[str, Work] = {
    "table-gelu": _TABLE,
    "polynomial-gelu": Work(multiplies=4, adds=4, shifts=3, compares=2),
    "integer-gelu": Work(multiplies=3, adds=4, shifts=2, compares=2),
    "shift-gelu": _SHIFTS,
    "table-silu": _TABLE,
    "shift-silu": _SHIFTS,
}
"""Operations for each number."""
