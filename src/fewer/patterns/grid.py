"""The options a unit is offered: one pattern at a ladder of sparsities."""

from __future__ import annotations

from collections.abc import Sequence

from fewer.core.option import Option
from fewer.patterns.pattern import Pattern

DEFAULT_SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def default_sparsities(units: int) -> tuple[float, ...]:
    """Ladder of sparsities for a model of so many units: the fewer units, the finer, so that a budget is used up.

    Examples
    --------
    >>> len(default_sparsities(50)), len(default_sparsities(10)), len(default_sparsities(2))
    (10, 19, 49)
    """
    if units > 24:
        return DEFAULT_SPARSITIES
    steps = 20 if units > 6 else 50
    return tuple(round(i / steps, 2) for i in range(1, steps))


def option_grid(pattern: str, sparsities: Sequence[float] = DEFAULT_SPARSITIES) -> tuple[Option, ...]:
    """List the options of one pattern, the dense one first.

    An ``nm`` pattern has a single sparsity; ``nm:*:16`` offers every n from 15 to 1 of 16.

    Examples
    --------
    >>> [str(option) for option in option_grid("2:4")]
    ['dense', 'nm:2:4']
    """
    if pattern.startswith("nm:*:"):
        m = Pattern.parse(f"nm:1:{pattern.rpartition(':')[2]}").m
        return (Option(), *(Option(f"nm:{n}:{m}", 1 - n / m) for n in range(m - 1, 0, -1)))
    parsed = Pattern.parse(pattern)
    if parsed.kind == "dense":
        return (Option(),)
    if parsed.kind == "nm":
        return (Option(), Option(str(parsed), 1 - parsed.n / parsed.m))
    return (Option(), *(Option(str(parsed), s) for s in sorted(set(sparsities)) if 0 < s <= 1))
