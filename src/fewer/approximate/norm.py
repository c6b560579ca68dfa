"""LayerNorm and RMSNorm over the last axis, in integers and without the affine part, which joins the layer behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fewer.approximate.arithmetic import Integers, clip, divide, floor_root, total
from fewer.approximate.method import Span, Work
from fewer.core.methods import Method, MethodTable

__all__ = ["NORMS", "TARGETS", "Norm", "channel_shifts"]

Norm = Callable[..., tuple[Integers, float]]
"""Of integers, their scale, the span, and an epsilon."""

_FRACTION = 10  # bits behind the point of a normalised number
_ROOT = 8  # and of a standard deviation
_LIMIT = 2**22
_MOST = 2**59


def _over_root(centred: Integers, width: int, epsilon: float = 0.0) -> tuple[Integers, float]:
    """``epsilon`` is in squared units of the numbers; it has as many bits behind the point as the variance."""
    variance = (total(centred * centred) // width) << (2 * _ROOT)
    if epsilon:
        variance = variance + min(round(epsilon * 2.0 ** (2 * _ROOT)), _MOST)
    deviation = clip(floor_root(variance), 1, 2**40)
    return divide(centred << (_FRACTION + _ROOT), deviation), 2.0**-_FRACTION


def layer_norm(q: Integers, scale: float, span: Span = None, epsilon: float = 0.0) -> tuple[Integers, float]:
    """``(x - mean) / deviation`` with an integer square root and one division for each number (I-BERT, I-ViT).

    Numbers are taken at up to 23 bits; the result has 10 bits behind the point.

    Parameters
    ----------
    q
        Integers [..., width] of one scale.
    scale
        Of the input; it cancels out.
    span
        Unused.
    epsilon
        Of the float operation, which keeps rows small that are all but constant: it is added to the variance, as an
        integer. Integer networks leave it out.

    Returns
    -------
    (Integers, float)
        The normalised numbers and ``2**-10``.

    Examples
    --------
    >>> y, s = layer_norm(np.array([[-1000, 0, 1000, 2000]]), 1.0)
    >>> (y * s).round(2)
    array([[-1.34, -0.45,  0.45,  1.34]])
    """
    width = q.shape[-1]
    q = clip(q, -_LIMIT, _LIMIT)
    return _over_root(q - divide(total(q), width), width, epsilon / scale**2)


def rms_norm(q: Integers, scale: float, span: Span = None, epsilon: float = 0.0) -> tuple[Integers, float]:
    """``x / sqrt(mean(x**2))``, as :func:`layer_norm` without the mean.

    Examples
    --------
    >>> y, s = rms_norm(np.array([[300, 400]]), 1.0)
    >>> (y * s).round(2)
    array([[0.85, 1.13]])
    """
    return _over_root(clip(q, -_LIMIT, _LIMIT), q.shape[-1], epsilon / scale**2)


def channel_shifts(largest: np.ndarray, scale: float, bits: int = 8, most: int = 15) -> np.ndarray:
    """Power-of-two factors, one for each channel, with which numbers fit into ``bits`` bits.

    Examples
    --------
    >>> channel_shifts(np.array([100.0, 1000.0]), 1.0)
    array([0, 3])
    """
    reach = np.asarray(largest, dtype=float) / (scale * (2 ** (bits - 1) - 1))
    return np.clip(np.ceil(np.log2(np.maximum(reach, 1e-30))), 0, most).astype(np.int64)


def factor_layer_norm(q: Integers, scale: float, span: Span = None, epsilon: float = 0.0) -> tuple[Integers, float]:
    """LayerNorm of numbers of 8 bits, each channel with a power of two of its own (FQ-ViT, arXiv 2111.13824).

    What is kept between blocks then needs a byte for each number. The channels' factors come from ``span``, the
    largest magnitude that calibration saw of each; without it 23 bits are kept, as in :func:`layer_norm`.

    Examples
    --------
    >>> y, s = factor_layer_norm(np.array([[-1000, 0, 1000, 2000]]), 1.0, np.array([1000, 1, 1000, 2000]))
    >>> (y * s).round(1)
    array([[-1.3, -0.4,  0.4,  1.3]])
    """
    if span is None:
        return layer_norm(q, scale, span, epsilon)
    shifts = channel_shifts(np.asarray(span), scale)
    unit = np.left_shift(np.int64(1), shifts)
    return layer_norm(clip(divide(q, unit), -127, 127) * unit, scale, None, epsilon)


NORMS: MethodTable[Norm] = MethodTable(
    "norm",
    [
        Method("layer-norm", layer_norm, "integer mean, square root and division", "I-BERT (ICML 2021)"),
        Method(
            "factor-layer-norm",
            factor_layer_norm,
            "a byte for each number, with a power of two for each channel",
            "FQ-ViT (IJCAI 2022)",
        ),
        Method("rms-norm", rms_norm, "integer square root and division, without the mean", "RMSNorm (NeurIPS 2019)"),
    ],
)
"""Every integer norm; the first one is the default."""


def _exact_layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.maximum(x.std(-1, keepdims=True), 1e-30)


def _exact_rms_norm(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.sqrt((x * x).mean(-1, keepdims=True)), 1e-30)


TARGETS = {
    "layer-norm": _exact_layer_norm,
    "factor-layer-norm": _exact_layer_norm,
    "rms-norm": _exact_rms_norm,
}
"""What each row stands for, in double precision."""

WORK: dict[str, Work] = {
    "layer-norm": Work(multiplies=1, adds=5, shifts=1, divides=1),
    "factor-layer-norm": Work(multiplies=1, adds=5, shifts=3, divides=1),
    "rms-norm": Work(multiplies=1, adds=4, shifts=1, divides=1),
}
"""Operations for each number."""
