"""Range estimators: which magnitude the largest integer stands for, one for each row of a weight."""

from __future__ import annotations

import torch
from torch import Tensor

from fewer.core.errors import FewerError, near_match

__all__ = ["ESTIMATORS", "levels", "row_scales"]

ESTIMATORS = ("min-max", "percentile", "mse")
_PERCENTILE = 0.999
_FRACTIONS = tuple(round(1 - 0.02 * i, 2) for i in range(26))  # 1.00 down to 0.50 of the largest magnitude


def levels(bits: int) -> int:
    """Largest integer of a symmetric format: 7 for 4 bits; 64 for 8.

    Not 127 for 8: a processor without VNNI adds up pairs of products of bytes in 16 bits, and 255 x (64 + 64) is what
    fits (native/micro.h). With feedback (:mod:`fewer.quantize.feedback`) 64 levels lose less than 127 do without.

    Examples
    --------
    >>> levels(8), levels(4)
    (64, 7)
    """
    if not 2 <= bits <= 8:
        raise FewerError(f"integers of {bits} bits are not supported; use 2 to 8")
    return 64 if bits == 8 else 2 ** (bits - 1) - 1


def row_scales(matrix: Tensor, bits: int = 8, estimator: str = "min-max", importance: Tensor | None = None) -> Tensor:
    """Step between two integers, for each row.

    Parameters
    ----------
    matrix
        Weight, shape (rows, columns).
    bits
        Of the integers, which are symmetric about 0.
    estimator
        ``min-max``: the largest magnitude, nothing is clipped. ``percentile``: the 99.9th percentile of the
        magnitudes that are not zero.
        ``mse``: of 26 ranges between half of the largest magnitude and all of it, the one with the least squared
        rounding error.
    importance
        Weight of each column's squared error for ``mse``, shape (columns,): mean squares of the inputs.

    Returns
    -------
    Tensor
        Shape (rows,), positive; 1 for a row of zeros.

    Raises
    ------
    FewerError
        For an unknown estimator.

    Examples
    --------
    >>> row_scales(torch.tensor([[64.0, -2.0], [0.0, 0.0]]))
    tensor([1., 1.])
    """
    if estimator not in ESTIMATORS:
        raise FewerError(f"unknown range estimator {estimator!r}{near_match(estimator, ESTIMATORS)}")
    top, magnitude = levels(bits), matrix.abs()
    peak = magnitude.amax(1)
    if estimator == "percentile":
        # of the weights that stay: of a row that is mostly zeros the percentile would say nothing
        clipped = ((magnitude > 0).sum(1) * (1 - _PERCENTILE)).long()
        peak = magnitude.sort(1, descending=True).values.gather(1, clipped[:, None])[:, 0]
    elif estimator == "mse":
        peak = _least_error(matrix, peak, top, importance)
    return torch.where(peak > 0, peak / top, torch.ones_like(peak))


def _least_error(matrix: Tensor, peak: Tensor, top: int, importance: Tensor | None) -> Tensor:
    weight = matrix.new_ones(matrix.shape[1]) if importance is None else importance.to(matrix.dtype)
    best, least = peak, torch.full_like(peak, torch.inf)
    for fraction in _FRACTIONS:
        scale = torch.where(peak > 0, fraction * peak / top, torch.ones_like(peak))[:, None]
        error = (((matrix / scale).round().clamp(-top, top) * scale - matrix).square() * weight).sum(1)
        best = torch.where(error < least, fraction * peak, best)
        least = torch.minimum(error, least)
    return best
