"""What the tables of approximations share: the span of an input, and the operations that one number costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Span", "Work"]

Span = Any
"""``(low, high)`` of the inputs that calibration saw, as real numbers; for norms the largest magnitude per channel."""

# picojoules in 45 nm: Horowitz (ISSCC 2014) for additions and products of 32 bits; a division is counted as a product
# for every second bit of its quotient, a look-up as a byte-wide read of 8 kB of SRAM; both are chosen here
_PICOJOULES = {"multiplies": 3.1, "adds": 0.1, "shifts": 0.1, "compares": 0.1, "lookups": 1.25, "divides": 25.0}

_DIVISION = 8


@dataclass(frozen=True)
class Work:
    """Integer operations for one number that goes through an approximation.

    Examples
    --------
    >>> round(Work(multiplies=1, adds=2).picojoules, 2)
    3.3
    """

    multiplies: float = 0
    adds: float = 0
    shifts: float = 0
    divides: float = 0
    lookups: float = 0
    compares: float = 0

    @property
    def operations(self) -> float:
        """Steps of a vector unit: one for each operation, eight for a division, as for its energy.

        Examples
        --------
        >>> Work(multiplies=1, adds=2, divides=1).operations
        11
        """
        others = self.multiplies + self.adds + self.shifts + self.lookups + self.compares
        return others + _DIVISION * self.divides

    @property
    def picojoules(self) -> float:
        """Modelled energy of one number, 45 nm."""
        return sum(getattr(self, name) * price for name, price in _PICOJOULES.items())
