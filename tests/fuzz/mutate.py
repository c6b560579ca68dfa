"""Mutations of JSON values and of bytes, drawn from a seeded generator."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

__all__ = ["FLAG_VALUES", "VALUES", "mutated_bytes", "mutated_json"]

VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, -(2**63), 2**200, 1e308, 1e-320, float("nan"), float("inf"), "", "x",
    "a" * 5000, "\ud800", "../../x", "/etc/passwd", "\x1b[2J", [], [[]], {}, {"a": 1}, [1, 2, 3], ["0"], [-1], [0],
    3.5, "NaN", "int8", "block:0x0", "block:16x4", "block:9999999x9999999", "unstructured@0.5", "<script>",
    [40000, 40000, 2], [[[[[[0]]]]]], "http://127.0.0.1:9/x", "evil.py",
]  # fmt: skip

FLAG_VALUES = [
    "", "0", "-1", "1e30", "nan", "inf", "-inf", "9" * 30, "99999999999x1", "block:99999999999999999999x1", "x" * 300,
    "a,b", ",", "1,nan", "../..", "/dev/zero", "/dev/null", "\x1b[31m", "none", "true", "1e-400", "0x10", "²", "🙂",
]  # fmt: skip


def _paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 4)):
            yield from _paths(value[index], (*path, index))


def mutated_json(value: Any, draw: random.Random) -> Any:
    """A copy with one or two places changed, added or taken away."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice([1, 1, 1, 2])):
        paths = [path for path in _paths(value) if path]
        if not paths:
            return draw.choice(VALUES)
        path = draw.choice(paths)
        at = value
        for part in path[:-1]:
            at = at[part]
        how, old = draw.random(), at[path[-1]]
        if how < 0.12:
            del at[path[-1]]
        elif how < 0.2 and isinstance(at, dict):
            at[f"zz{draw.randint(0, 9)}"] = draw.choice(VALUES)
        elif how < 0.3 and isinstance(at, list):
            at.append(draw.choice(VALUES))
        elif how < 0.4 and isinstance(old, (int, float)) and not isinstance(old, bool):
            at[path[-1]] = old * draw.choice([2, -1, 1000]) + draw.choice([0, 1])
        else:
            at[path[-1]] = copy.deepcopy(draw.choice(VALUES))
    return value


def mutated_bytes(data: bytes, draw: random.Random) -> bytes:
    """A copy with some bytes changed, cut out, doubled or set to the largest number."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 8])):
        if not changed:
            return bytes(draw.randbytes(draw.randint(0, 40)))
        at, how = draw.randrange(len(changed)), draw.random()
        if draw.random() < 0.5:
            at = min(at, draw.randrange(512))  # most of what is believed stands in the header
        length = draw.choice([1, 1, 2, 4, 8, 64])
        if how < 0.3:
            changed[at : at + length] = draw.randbytes(length)
        elif how < 0.5:
            changed[at : at + length] = b"\xff" * length
        elif how < 0.6:
            changed[at : at + length] = b"\x00" * length
        elif how < 0.75:
            del changed[at:]
        elif how < 0.9:
            del changed[at : at + length]
        else:
            changed[at:at] = changed[: draw.choice([16, 256])]
    return bytes(changed)
