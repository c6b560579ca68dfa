"""The part of TOML that a run's configuration needs: read with the standard reader, written by a small writer."""

from __future__ import annotations

import json
import math
import numbers
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.reading import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["dump_toml", "load_toml", "read_toml"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dump_toml(data: Mapping[str, Any]) -> str:
    """Write a mapping of text, numbers, booleans, lists and tables; keys that are ``None`` are left out.

    Raises
    ------
    FewerError
        When a value has no place in TOML.

    Examples
    --------
    >>> print(dump_toml({"seed": 0, "images": {"folder": "photos", "count": 64}}), end="")
    seed = 0
    <BLANKLINE>
    [images]
    folder = "photos"
    count = 64
    """
    return "\n".join(_table(data, ())) + "\n"


def _table(data: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in data.items() if v is not None and not isinstance(v, Mapping)}
    tables = {k: v for k, v in data.items() if isinstance(v, Mapping)}
    lines = [f"{_key(k)} = {_value(v, '.'.join((*path, k)))}" for k, v in plain.items()]
    for key, inner in tables.items():
        name = ".".join(_key(p) for p in (*path, key))
        lines += [*([""] if lines else []), f"[{name}]", *_table(inner, (*path, key))]
    return lines


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(value: str) -> str:
    # JSON's escapes are TOML's, except that TOML also forbids a raw delete character
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        value = float(value)
        if math.isnan(value) or math.isinf(value):
            return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
        text = repr(value)
        return text if any(c in text for c in ".en") else text + ".0"
    if isinstance(value, (str, Path)):
        return _text(str(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(v, f"{where}[{i}]") for i, v in enumerate(value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v, f'{where}.{k}')}" for k, v in value.items()) + "}"
    raise FewerError(f"the configuration value {where!r} is a {type(value).__name__}, which TOML cannot hold")


def load_toml(text: str, where: str = "the configuration") -> dict[str, Any]:
    """Read TOML text.

    Raises
    ------
    FewerError
        With the line and column of the mistake.

    Examples
    --------
    >>> load_toml("seed = 0")
    {'seed': 0}
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FewerError(f"{where} is not valid TOML: {error}") from None
    except (RecursionError, ValueError):
        raise FewerError(f"{where} is not valid TOML: it is nested too deeply, or holds an impossible number") from None


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    FewerError
        When it is missing, not text, or not TOML.
    """
    return load_toml(read_text(path, 2**22, "configuration"), str(path))
