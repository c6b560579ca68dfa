"""Statistics of repeated timings: the median, the quartiles, paired ratios, and when a machine counts as noisy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["NOISY", "Spread", "paired_ratio", "spread"]

NOISY = 0.15
"""A row is noisy when the middle half of its rounds spans more than this share of the median."""


@dataclass(frozen=True)
class Spread:
    """Median, quartiles and minimum of a sample, in the sample's own unit."""

    median: float
    low: float
    high: float
    best: float

    @property
    def relative(self) -> float:
        """Interquartile range over the median."""
        return (self.high - self.low) / self.median if self.median > 0 else 0.0

    @property
    def noisy(self) -> bool:
        """Whether the spread is too wide to trust a difference of a few percent."""
        return self.relative > NOISY


def spread(values: Sequence[float]) -> Spread:
    """Summarise a sample of at least one value.

    Examples
    --------
    >>> spread([4.0, 1.0, 2.0, 3.0, 100.0])
    Spread(median=3.0, low=2.0, high=4.0, best=1.0)
    """
    low, median, high = np.percentile(np.asarray(values, dtype=float), [25, 50, 75])
    return Spread(float(median), float(low), float(high), float(min(values)))


def paired_ratio(reference: Sequence[float], values: Sequence[float]) -> float:
    """Median over rounds of reference / value in the same round: how many times faster, free of slow drift.

    Examples
    --------
    >>> paired_ratio([2.0, 20.0, 4.0], [1.0, 10.0, 1.0])
    2.0
    """
    rounds = min(len(reference), len(values))
    return float(np.median(np.asarray(reference[:rounds], float) / np.asarray(values[:rounds], float)))
