"""The exponential function of numbers that are not positive, in integers."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from fewer.approximate.arithmetic import Integers, clip, take

__all__ = ["exponential_lines", "shift_exp", "table_exp", "two_step_exp"]

_TABLE_BITS = 20
_FAR = 30  # halvings; e ** -20 is nothing beside 1


def two_step_exp(q: Integers, scale: float) -> tuple[Integers, float]:
    """exp as halvings and a polynomial of degree 2 (I-BERT, arXiv 2101.01321, section 3.5).

    ``x = p - z ln 2`` with ``p`` in ``(-ln 2, 0]``; ``exp(p)`` is near ``0.3585 (p + 1.353)**2 + 0.344``.

    Parameters
    ----------
    q
        Integers that are not positive; the numbers are ``q * scale``.
    scale
        At most about 0.1; errors of the rounded constants grow with it.

    Returns
    -------
    (Integers, float)
        Integers that are not negative, and their scale. The error is at most 1.9e-3 for a small scale.

    Examples
    --------
    >>> e, s = two_step_exp(np.array([0, -1024]), 1 / 1024)
    >>> (e * s).round(3)
    array([1.   , 0.368])
    """
    halving = max(1, round(math.log(2) / scale))
    q = clip(q, -_FAR * halving, 0)
    z = (0 - q) // halving
    p = q + z * halving
    middle, rest = round(1.353 / scale), round(0.344 / (0.3585 * scale * scale))
    return (((p + middle) * (p + middle) + rest) << 4) >> z, 0.3585 * scale * scale / 16


def shift_exp(q: Integers, scale: float) -> tuple[Integers, float]:
    """exp by shifts alone: ``x log2 e`` is near ``x + x/2 - x/16`` and ``2**-r`` near ``1 - r/2`` (I-ViT, 2207.01405).

    The error is at most 4.4e-2.

    Examples
    --------
    >>> e, s = shift_exp(np.array([0, -1024]), 1 / 1024)
    >>> (e * s).round(2)
    array([1.  , 0.39])
    """
    bits = 15
    q = q + (q >> 1) - (q >> 4)
    halving = max(1, round(1 / scale))
    q = clip(q, -bits * halving, 0)
    z = (0 - q) // halving
    r = q + z * halving
    return (((r >> 1) + halving) << bits) >> z, 1 / (halving << bits)


@lru_cache(maxsize=64)
def _segments(halving: int, count: int, bits: int) -> tuple[list[int], list[int]]:
    """Slopes and intercepts for ``2**bits * 2**(p / halving)`` on ``count`` equal parts of ``(-halving, 0]``."""
    edges = -np.arange(count + 1) / count  # 0, -1/count, ..., -1
    values = 2.0**edges
    slopes = (values[:-1] - values[1:]) * count  # for each unit of p / halving
    intercepts = values[:-1] - slopes * edges[:-1]
    # a chord lies above a convex curve; half of its largest gap is taken off
    at = np.log2(slopes / math.log(2))
    gap = slopes * at + intercepts - 2.0**at
    slopes_int = np.rint(slopes * 2.0**bits / halving * 2**8).astype(np.int64)
    return slopes_int.tolist(), np.rint((intercepts - gap / 2) * 2.0**bits).astype(np.int64).tolist()


def exponential_lines(scale: float, segments: int = 4) -> tuple[int, list[int], list[int]]:
    """What :func:`table_exp` is made of: after how many units of the scale an exponential is half as large, and lines.

    Examples
    --------
    >>> halving, slopes, intercepts = exponential_lines(1 / 1024)
    >>> halving, len(slopes), len(intercepts)
    (710, 4, 4)
    """
    halving = max(1, round(math.log(2) / scale))
    slopes, intercepts = _segments(halving, segments, _TABLE_BITS)
    return halving, slopes, intercepts


def table_exp(q: Integers, scale: float, segments: int = 4) -> tuple[Integers, float]:
    """exp as halvings and a line from a table of four, with one multiplication.

    Known from look-up units of accelerators (NN-LUT, arXiv 2112.02191); the segments are of equal length here, and
    each line is moved by half of its largest error. At most 1.8e-3 with 4 segments for a small scale.

    Examples
    --------
    >>> e, s = table_exp(np.array([0, -1024]), 1 / 1024)
    >>> (e * s).round(2)
    array([1.  , 0.37])
    """
    bits = _TABLE_BITS
    halving, slopes, intercepts = exponential_lines(scale, segments)
    q = clip(q, -_FAR * halving, 0)
    z = (0 - q) // halving
    p = q + z * halving
    index = ((0 - p) * segments) // halving
    line = ((take(slopes, index) * p) >> 8) + take(intercepts, index)
    return clip(line, 0, 1 << bits) >> z, 2.0**-bits
