"""Which layers play the same role, and which belong to the same block: both read from their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from fewer.reports.compression.data import UnitResult

MOST_ROLES = 7


def roles(units: Sequence[UnitResult]) -> list[str]:
    """Give each unit a role: the end of its name without numbers, if that makes two to seven groups, else its kind.

    Examples
    --------
    >>> from fewer.reports.compression.data import UnitResult
    >>> def unit(name):
    ...     return UnitResult(name=name, kind="linear", shape=[2, 2], option="dense", pattern="dense", sparsity=0,
    ...                       kept_weights=4, weights=4)
    >>> roles([unit("blocks.0.attn.qkv"), unit("blocks.0.mlp.fc1"), unit("blocks.1.attn.qkv")])
    ['attn.qkv', 'mlp.fc1', 'attn.qkv']
    """
    for length in (2, 1):
        named = [_role(unit.name, length) for unit in units]
        if 2 <= len(set(named)) <= MOST_ROLES and len(set(named)) < len(named):
            return named
    kinds = [unit.kind for unit in units]
    # more kinds than colours: the rarest share one
    common = sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))[: MOST_ROLES - 1]
    return kinds if len(set(kinds)) <= MOST_ROLES else [kind if kind in common else "other" for kind in kinds]


def _role(name: str, length: int) -> str:
    words = [word for word in re.split(r"[./]", name) if word and not word.isdecimal()]
    return ".".join(words[-length:])


def blocks(names: Sequence[str]) -> tuple[str, list[tuple[str, int, int]]]:
    """Find runs of layers that belong to one block, that is share their name up to the first number.

    Returns
    -------
    (str, list of (label, first, last))
        The name of a block as a pattern ("blocks.N") and the runs as positions; empty without a common pattern.

    Examples
    --------
    >>> blocks(["embed", "blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.2.a"])
    ('blocks.N', [('0', 1, 2), ('1', 3, 3), ('2', 4, 4)])
    """
    found = [re.match(r"((?:[^.\d][^.]*\.)+)(\d+)(?=\.|$)", name) for name in names]
    stems = [match.group(1) for match in found if match]
    if not stems:
        return "", []
    stem = max(sorted(set(stems)), key=stems.count)
    labels = [match.group(2) if match and match.group(1) == stem else None for match in found]
    runs, start = [], 0
    for label, run in groupby(labels):
        length = len(list(run))
        if label is not None:
            runs.append((label, start, start + length - 1))
        start += length
    numbers = [label for label, _, _ in runs]
    if len(runs) < 3 or len(set(numbers)) < len(numbers) or stems.count(stem) < 0.6 * len(names):
        return "", []
    return f"{stem}N", runs
