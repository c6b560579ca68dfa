"""Types of the values that a report may hold: numbers that JSON can say, text that a page can show."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

__all__ = ["Amount", "Amounts", "Count", "Fraction", "Number", "Pair", "Pairs", "Text", "plain"]


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def plain(value: Any) -> Any:
    """Turn numpy and torch numbers and arrays (anything with ``ndim``) and tuples into plain Python values."""
    if isinstance(value, tuple):
        return list(value)
    if hasattr(value, "ndim") and hasattr(value, "tolist"):
        return value.tolist()
    return value


def _printable(value: Any) -> Any:
    """Spell out what a page cannot carry (undecodable bytes, control characters) and what turns text around (bidi)."""
    if not isinstance(value, str):
        return value
    value = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found.group()):02x}", value)


Number = Annotated[float, BeforeValidator(plain)]


Amount = Annotated[float, BeforeValidator(plain), Field(ge=0)]


Count = Annotated[int, BeforeValidator(plain), Field(ge=0)]


Fraction = Annotated[float, BeforeValidator(plain), Field(ge=0, le=1)]


Text = Annotated[str, BeforeValidator(_printable)]


Amounts = Annotated[list[Amount], BeforeValidator(plain)]


Pair = Annotated[list[Amount], BeforeValidator(plain), Field(min_length=2, max_length=2)]


Pairs = Annotated[list[Pair], BeforeValidator(plain)]
