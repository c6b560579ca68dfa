"""Activations as squares of squares, which cost one ciphertext product for each level and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewer.core.errors import FewerError

__all__ = ["DEGREES", "Line", "Squares", "chebyshev_nodes", "fit_line", "fit_squares"]

DEGREES = (2, 4)

_BENT = 0.02
"""Curvature over slope, on half of the interval, below which a function is a line."""


@dataclass(frozen=True)
class Squares:
    """``outer * (...((x + shifts[0])**2 + shifts[1])**2 ...)**2 + rest``: a polynomial of degree ``2**len(shifts)``.

    The factor and the constant become a part of the linear layers around it, the shifts are additions, so that each
    square is one level. Any polynomial of degree 2 can be written so; of degree 4, those with an axis.

    Attributes
    ----------
    low, high
        The interval that it was fitted on.
    """

    shifts: tuple[float, ...]
    outer: float
    rest: float
    low: float
    high: float

    def __call__(self, x: Any) -> Any:
        """Value of the polynomial, on arrays and on tensors."""
        for shift in self.shifts:
            x = (x + shift) ** 2
        return self.outer * x + self.rest

    @property
    def degree(self) -> int:
        """Of the polynomial."""
        return 2 ** len(self.shifts)


@dataclass(frozen=True)
class Line:
    """``slope * x + rise``: an activation that goes. It takes no level, and the layers around it become one."""

    slope: float
    rise: float
    low: float
    high: float

    def __call__(self, x: Any) -> Any:
        """Value of the line, on arrays and on tensors."""
        return self.slope * x + self.rise

    @property
    def degree(self) -> int:
        """Of the polynomial."""
        return 1


def fit_line(function: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> Line:
    """The straight line that is nearest to a function on the numbers that calibration saw.

    Examples
    --------
    >>> line = fit_line(lambda x: 3 * x + 1, np.linspace(-1, 1, 50))
    >>> round(line.slope, 6), round(line.rise, 6)
    (3.0, 1.0)
    """
    x = np.asarray(values, dtype=float).reshape(-1)
    y = np.asarray(function(x), dtype=float)
    spread = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean() / spread) if spread else 0.0
    return Line(slope, float(y.mean() - slope * x.mean()), float(x.min()), float(x.max()))


def chebyshev_nodes(low: float, high: float, count: int = 64) -> np.ndarray:
    """Points that crowd at the ends of an interval, where polynomials err most.

    Examples
    --------
    >>> chebyshev_nodes(-1, 1, 2).round(3)
    array([ 0.707, -0.707])
    """
    nodes = np.cos((2 * np.arange(count) + 1) * np.pi / (2 * count))
    return (high + low) / 2 + (high - low) / 2 * nodes


def fit_squares(
    function: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    degree: int = 2,
    *,
    interval: tuple[float, float] | None = None,
    margin: float = 1.1,
) -> Squares | Line:
    """The polynomial that is nearest to a function on the numbers that calibration saw.

    A function that is all but a straight line there becomes one: as a square it would stand far out on a wide parabola,
    where differences of large numbers are all that is left.

    Parameters
    ----------
    function
        The activation.
    values
        What goes into it, a sample.
    degree
        2 or 4.
    interval
        Where the polynomial has to hold; by default what was seen, ``margin`` times as wide. A tenth of the weight of
        the fit lies on its Chebyshev nodes, so that no rare number is far off.

    Raises
    ------
    FewerError
        For another degree.

    Examples
    --------
    >>> square = fit_squares(lambda x: 3 * x * x + x, np.linspace(-1, 1, 50))
    >>> bool(np.allclose(square(np.array([0.5, -0.5])), [1.25, 0.25]))
    True
    """
    if degree not in DEGREES:
        raise FewerError(f"activations have degree 2 or 4 so far, not {degree}")
    values = np.asarray(values, dtype=float).reshape(-1)
    if len(values) > 4000:
        values = np.quantile(values, np.linspace(0, 1, 4001))
    middle, half = (values.max() + values.min()) / 2, max((values.max() - values.min()) / 2, 1e-3) * margin
    low, high = interval or (middle - half, middle + half)
    nodes = chebyshev_nodes(low, high)
    x = np.concatenate([values, nodes])
    weight = np.sqrt(np.concatenate([np.full(len(values), 0.9 / len(values)), np.full(len(nodes), 0.1 / len(nodes))]))
    with np.errstate(all="ignore"):
        y = np.asarray(function(x), dtype=float)
    if not np.isfinite(y).all():
        raise FewerError(
            f"the function is not finite on all numbers from {low:.3g} to {high:.3g}, so no polynomial is near"
        )
    line = fit_line(function, values)
    if np.ptp(y) <= 1e-12 * float(np.abs(y).max()):
        return line
    if degree == 2:
        return _square(x, y, weight, low, high) or line
    found = _square_of_square(x, y, weight, low, high)
    errors = [float((((made(x) - y) * weight) ** 2).sum()) for made in (line, found) if made is not None]
    return line if found is None or errors[0] <= errors[1] else found


def _square(x: np.ndarray, y: np.ndarray, weight: np.ndarray, low: float, high: float) -> Squares | None:
    """By weighted least squares; None where it is all but a straight line."""
    c, b, a = np.linalg.lstsq(np.stack([x**0, x, x * x], 1) * weight[:, None], y * weight, rcond=None)[0]
    width, middle = (high - low) / 2, (high + low) / 2
    least = max(_BENT * abs(b + 2 * a * middle), 1e-9 * float(np.abs(y).max()) / width)
    if abs(a) * width <= least:
        return None
    shift = b / (2 * a)
    return Squares((float(shift),), float(a), float(c - a * shift**2), float(low), float(high))


def _square_of_square(x: np.ndarray, y: np.ndarray, weight: np.ndarray, low: float, high: float) -> Squares | None:
    """The best axis is searched for. Numbers are of the size of 1 meanwhile: fourth powers would drown in rounding."""
    unit = (high - low) / 2
    t, start, top = x / unit, low / unit, float(np.abs(y).max())
    best: tuple[float, Squares | None] = (np.inf, None)
    for first in np.linspace(-start - 1, -start + 6, 60):
        inner = (t + first) ** 2
        # for a fixed first shift the rest is a parabola in the inner square
        basis = np.stack([inner**0, inner, inner * inner], 1)
        (c, b, a), *_ = np.linalg.lstsq(basis * weight[:, None], y * weight, rcond=None)
        if abs(a) < 1e-9 * top:
            continue
        second = b / (2 * a)
        error = float(((basis @ np.array([c, b, a]) - y) ** 2 * weight**2).sum())
        shifts = float(first * unit), float(second * unit**2)
        found = Squares(shifts, float(a / unit**4), float(c - a * second**2), float(low), float(high))
        best = min(best, (error, found), key=lambda pair: pair[0])
    return best[1]
