"""Fingerprint: whether a function that a user gives is the one of an earlier process."""

from __future__ import annotations

import functools
import hashlib
from types import CodeType, FunctionType, MethodType
from typing import Any

__all__ = ["function_fingerprint"]

_PLAIN = (int, float, complex, str, bytes, bool, type(None))


def function_fingerprint(function: Any) -> str:
    """Sixteen letters that are the same in every process as long as a function does the same.

    They stand for its code, the numbers and texts that it is bound to, and the functions among them. Objects of other
    kinds count by their class alone, so that a network which a function holds does not matter; work that depends on it
    has to look at it by itself.

    Parameters
    ----------
    function
        A function, method, class or object that can be called, or None.

    Examples
    --------
    >>> def times(n):
    ...     return lambda x: n * x
    >>> function_fingerprint(times(2)) == function_fingerprint(times(2)) != function_fingerprint(times(3))
    True
    """
    return hashlib.sha256(_told(function, ()).encode()).hexdigest()[:16]


def _told(value: Any, above: tuple[int, ...]) -> str:
    """What there is to say of a value; one that holds itself is told once."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if id(value) in above:
        return "itself"
    above = (*above, id(value))
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_told(one, above) for one in value)}]"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(_told(one, above) for one in value))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_told(k, above)}: {_told(v, above)}' for k, v in value.items())}}}"
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()} {value.co_names} {_told(value.co_consts, above)}"
    if isinstance(value, FunctionType):
        cells = [_inside(cell) for cell in value.__closure__ or ()]
        return _told((value.__code__, value.__defaults__, value.__kwdefaults__, cells), above)
    if isinstance(value, MethodType):
        return _told((value.__func__, value.__self__), above)
    if isinstance(value, functools.partial):
        return _told((value.func, value.args, value.keywords), above)
    if isinstance(value, type):
        own = {k: v for k, v in vars(value).items() if isinstance(v, (FunctionType, *_PLAIN)) and not _is_noise(k)}
        return f"{value.__module__}:{value.__qualname__} {_told(own, above)}"
    state = {k: v for k, v in getattr(value, "__dict__", {}).items() if isinstance(v, (FunctionType, *_PLAIN))}
    return f"{type(value).__module__}:{type(value).__qualname__} {_told(state, above)}"


def _is_noise(name: str) -> bool:
    """Attributes of a class that change without its work."""
    return name in ("__doc__", "__firstlineno__", "__module__", "__qualname__")


def _inside(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is given later
        return None
