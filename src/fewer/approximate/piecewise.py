"""Piecewise-linear tables of a function whose breakpoints are where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fewer.approximate.arithmetic import Integers, bucket, take

__all__ = ["Table", "fit_table"]

_GRID = 2001
_SLOPE_BITS = 12
_VALUE_BITS = 12


@dataclass(frozen=True)
class Table:
    """Lines: ``slope[i] * x + intercept[i]`` between the breakpoints ``i - 1`` and ``i``."""

    breaks: tuple[float, ...]
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """In floating point, for the fit and its tests."""
        i = np.searchsorted(self.breaks, x, side="right")
        return np.asarray(self.slopes)[i] * x + np.asarray(self.intercepts)[i]

    def integers(self, q: Integers, scale: float) -> tuple[Integers, float]:
        """Evaluate on integers: compare, look two numbers up, multiply once, add once."""
        index = bucket(q, [round(b / scale) for b in self.breaks])
        slopes = [round(s * 2**_SLOPE_BITS) for s in self.slopes]
        unit = scale / 2**_SLOPE_BITS
        intercepts = [round(c / unit) for c in self.intercepts]
        line = q * take(slopes, index) + take(intercepts, index)
        return line >> (_SLOPE_BITS - 4), scale / 16


def fit_table(
    function: Callable[[np.ndarray], np.ndarray],
    span: tuple[float, float],
    segments: int,
    outer: tuple[tuple[float, float], tuple[float, float]],
) -> Table:
    """The table of ``segments`` lines whose largest error is least, up to the grid that it is looked for on.

    The largest error that is allowed is found by bisection: each segment goes as far to the right as one line within
    the error can, so that no table of fewer segments has it.

    Parameters
    ----------
    function
        Of an array.
    span
        ``(low, high)`` that the segments cover.
    segments
        How many lines.
    outer
        Slope and intercept below the span, and above it.

    Examples
    --------
    >>> table = fit_table(np.abs, (-1.0, 1.0), 2, ((-1.0, 0.0), (1.0, 0.0)))
    >>> float(np.abs(table(np.linspace(-1, 1, 99)) - np.abs(np.linspace(-1, 1, 99))).max()) < 1e-6
    True
    """
    x = np.linspace(*span, _GRID)
    y = function(x)
    low, high = 0.0, float(np.ptp(y)) + 1e-9
    found = _cover(x, y, high)
    for _ in range(24):
        error = (low + high) / 2
        cover = _cover(x, y, error)
        if len(cover) <= segments:
            high, found = error, cover
        else:
            low = error
    starts = [float(x[first]) for first, _, _ in found]
    slopes = [outer[0][0], *(s for _, s, _ in found), outer[1][0]]
    intercepts = [outer[0][1], *(c for _, _, c in found), outer[1][1]]
    return Table((*starts, float(x[-1])), tuple(map(float, slopes)), tuple(map(float, intercepts)))


def _cover(x: np.ndarray, y: np.ndarray, error: float) -> list[tuple[int, float, float]]:
    """Greedy segments as ``(first grid point, slope, intercept)``."""
    found, first, last = [], 0, len(x) - 1
    while first < last:
        low, high, best = first + 1, last, (*_line(x[first : first + 2], y[first : first + 2]),)
        end = first + 1
        while low <= high:
            middle = (low + high) // 2
            slope, intercept, worst = _line(x[first : middle + 1], y[first : middle + 1])
            if worst <= error:
                end, best, low = middle, (slope, intercept, worst), middle + 1
            else:
                high = middle - 1
        found.append((first, best[0], best[1]))
        first = end
    return found


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """The chord, moved so that errors on both sides are equal: the best line of a convex or concave piece."""
    slope = (y[-1] - y[0]) / (x[-1] - x[0])
    rest = y - slope * x
    return float(slope), float((rest.max() + rest.min()) / 2), float(np.ptp(rest) / 2)
