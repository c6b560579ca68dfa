"""The options a unit is offered: one pattern at a ladder of sparsities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.pattern import Pattern

COLUMNS = "columns"
"""In a list of patterns: input channels that can be removed together with what makes them, where a layer has such."""

DEFAULT_SPARSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def default_sparsities(units: int) -> tuple[float, ...]:
    """Ladder of sparsities for a model of so many units: the fewer units, the finer, so that a budget is used up.

    Examples
    --------
    >>> len(default_sparsities(50)), len(default_sparsities(10)), len(default_sparsities(2))
    (11, 19, 49)
    """
    if units > 24:
        return DEFAULT_SPARSITIES
    steps = 20 if units > 6 else 50
    return tuple(round(i / steps, 2) for i in range(1, steps))


def option_grid(
    pattern: str, sparsities: Sequence[float] = DEFAULT_SPARSITIES, precisions: Sequence[str] = ("fp32",)
) -> tuple[Option, ...]:
    """List the options of one or several patterns in one or several precisions, the dense fp32 one first.

    The others follow by pattern, then by rising sparsity, then by precision in the order given. An ``nm`` pattern has
    a single sparsity; ``nm:*:16`` offers every n from 15 to 1 of 16.

    Parameters
    ----------
    pattern
        A pattern, or several with commas: ``block:16x4,block:16x1``. A bare ``columns`` adds nothing here: which
        columns can go, and in what runs, depends on the layers before.
    sparsities
        For patterns that can have any.
    precisions
        Of the weights that stay, and of the arithmetic.

    Raises
    ------
    FewerError
        For an unknown pattern or precision.

    Examples
    --------
    >>> [str(option) for option in option_grid("2:4")]
    ['dense', 'nm:2:4']
    >>> [str(option) for option in option_grid("block:16x4", [0.5], ["bf16", "int8"])]
    ['dense', 'dense/bf16', 'dense/int8', 'block:16x4@0.5/bf16', 'block:16x4@0.5/int8']
    """
    base = [Option()]
    for part in pattern.split(","):
        base += [option for option in _one_pattern(part.strip(), sparsities) if option not in base]
    joint = [Option(o.pattern, o.sparsity, p) for o in base for p in precisions]
    return tuple(dict.fromkeys([Option(), *joint]))


def _one_pattern(pattern: str, sparsities: Sequence[float]) -> list[Option]:
    if pattern == COLUMNS:
        return []
    if pattern.startswith("nm:*:"):
        m = Pattern.parse(f"nm:1:{pattern.rpartition(':')[2]}").m
        return [Option(f"nm:{n}:{m}", 1 - n / m) for n in range(m - 1, 0, -1)]
    parsed = Pattern.parse(pattern)
    if parsed.kind in ("columns", "rows", "reads"):
        raise FewerError(f"write {COLUMNS!r} instead of {pattern!r}: how wide a run of columns is depends on the layer")
    if parsed.kind == "dense":
        return []
    if parsed.kind == "nm":
        return [Option(str(parsed), 1 - parsed.n / parsed.m)]
    return [Option(str(parsed), s) for s in sorted(set(sparsities)) if 0 < s <= 1]


def with_columns(patterns: str) -> bool:
    """Whether a list of patterns asks for columns.

    Examples
    --------
    >>> with_columns("block:16x4, columns"), with_columns("block:16x4")
    (True, False)
    """
    return any(part.strip() == COLUMNS for part in patterns.split(","))


def column_ladder(count: int, sparsities: Sequence[float]) -> tuple[float, ...]:
    """Sparsities at which another number of ``count`` equal runs of columns goes; one run always stays.

    Each is the share that really goes, rounded down to four digits, so that its number of runs is exact.

    Examples
    --------
    >>> column_ladder(6, [0.1, 0.2, 0.3, 0.4, 0.95])
    (0.1666, 0.3333, 0.5)
    """
    gone = sorted({math.ceil(s * count - 1e-9) for s in sparsities})
    return tuple(math.floor(k / count * 1e4 + 1e-9) / 1e4 for k in gone if 0 < k < count)


def families(options: Sequence[Option]) -> list[list[Option]]:
    """Cut a list of options into runs that one sweep can go through: one pattern each, in the order given.

    Examples
    --------
    >>> [len(run) for run in families(option_grid("block:16x4,block:16x1", [0.5, 0.9], ["fp32", "int8"]))]
    [2, 4, 4]
    """
    return [list(run) for _, run in groupby(options, lambda option: option.family)]
