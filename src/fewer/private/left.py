"""What ends a network and is left to whoever reads the results: they are decrypted there, and it is exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.private.network import Call, Held, Value, places_of

__all__ = ["LEFT", "after", "before", "left_at_the_end", "names_of"]


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    x = x - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def _sigmoid(x: np.ndarray, axis: int = 0) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


_TINY = 1e-12

# what it does to the results, and what gives them back, but for a constant of each row; both on doubles
LEFT: dict[str, tuple[Callable[..., np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "softmax": (_softmax, lambda y: np.log(np.maximum(y, _TINY))),
    "log_softmax": (_log_softmax, lambda y: y),
    "sigmoid": (_sigmoid, lambda y: np.log(np.maximum(y, _TINY)) - np.log(np.maximum(1 - y, _TINY))),
    "tanh": (lambda x, axis=0: np.tanh(x), lambda y: np.arctanh(np.clip(y, _TINY - 1, 1 - _TINY))),
    "log_sigmoid": (
        lambda x, axis=0: -np.logaddexp(0, -x),
        lambda y: -np.log(np.maximum(np.expm1(np.minimum(-y, 500.0)), _TINY)),
    ),
}
"""Operations that may be left, by name."""

_ROWS = ("softmax", "log_softmax")
_PADS = ("constant_pad_nd", "pad")


def left_at_the_end(
    calls: Sequence[Call], result: str, called: Mapping[str, str], moves: frozenset[str]
) -> tuple[list[Call], str, tuple[tuple[str, int], ...]]:
    """Take what may be left off the end of a network.

    Parameters
    ----------
    calls
        In order.
    result
        Key of the results.
    called
        Kinds of the activations, by key.
    moves
        Operations that put numbers elsewhere: a function of each number may stand in front of them.

    Returns
    -------
    list of Call, str, tuple of (str, int)
        Calls without it, the key of the results then, and name and axis of what was left, the last one first.
    """
    found, left = list(calls), []
    while True:
        by_key = {c.key: c for c in found}
        end = by_key.get(result)
        if end is not None and end.kind in _ROWS:
            left.append((end.kind, int(end.args[1]) % len(end.shape)))
            result = str(end.args[0].key)
            continue
        if any(name in _ROWS for name, _ in left):  # what is before a softmax is known but for a constant of each row
            return found, result, tuple(left)
        behind: list[str] = []
        while end is not None and end.kind in moves and _only_moves(end):
            behind.append(end.key)
            end = by_key.get(str(places_of(end.args, Value)[0].key))
        kind = "" if end is None else called.get(end.key, "")
        if end is None or kind not in LEFT or kind in _ROWS or _reads(found, end.key) > 1:
            return found, result, tuple(left)
        left.append((kind, 0))
        before = str(end.args[0].key)
        result = before if result == end.key else result
        found = [replace(c, args=_put(c.args, end.key, before)) if c.key in behind else c for c in found]


def _only_moves(call: Call) -> bool:
    """Whether it moves the numbers of one value, and puts no others beside them."""
    return call.kind not in _PADS and len(places_of(call.args, (Value, Held))) == 1


def _reads(calls: Sequence[Call], key: str) -> int:
    return sum(v.key == key for c in calls for v in places_of(c.args, Value))


def _put(args: Any, old: str, new: str) -> Any:
    if isinstance(args, Value):
        return Value(new) if args.key == old else args
    if isinstance(args, (list, tuple)):
        return type(args)(_put(a, old, new) for a in args)
    return args


def names_of(left: Sequence[tuple[str, int]]) -> list[str]:
    """Names of what was left, the last one first."""
    return [name for name, _ in left]


def after(results: np.ndarray, shape: Sequence[int], left: Sequence[tuple[str, int]]) -> np.ndarray:
    """Results of a circuit in the shape that the network gives them, with what was left to the client.

    Parameters
    ----------
    results
        Of one image, in a row.
    shape
        Of the network's results for one image, with the leading 1.
    left
        Of :func:`left_at_the_end`.

    Examples
    --------
    >>> after(np.zeros(2), (1, 2), [("softmax", 1)])
    array([0.5, 0.5])
    """
    found = np.asarray(results, dtype=float).reshape(tuple(shape))
    for name, axis in reversed(left):
        if name not in LEFT:
            raise FewerError(f"the circuit leaves {name!r} to the client, which this version does not know")
        found = LEFT[name][0](found, axis)
    return found.reshape(found.shape[1:]) if found.shape[:1] == (1,) else found


def before(said: np.ndarray, left: Sequence[tuple[str, int]]) -> np.ndarray:
    """What a network's answers [N, ...] were before what is left to the client, but for a constant of each row."""
    found = np.asarray(said, dtype=float)
    for (name, axis), following in zip(left, (*[one for one, _ in left[1:]], ""), strict=True):
        found = LEFT[name][1](found)
        if name == following == "softmax":  # what comes out of the inner one adds up to 1
            found = found - (found.sum(axis, keepdims=True) - 1) / found.shape[axis]
    return found
