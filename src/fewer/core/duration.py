"""How long something may take, as a person writes it."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator

from fewer.core.errors import FewerError

__all__ = ["Duration", "parse_duration"]

_SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_FORM = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*([A-Za-z]*)\s*")


def parse_duration(text: str | float) -> float:
    """Seconds of ``"90s"``, ``"10min"`` or ``"1.5h"``; a number is taken for seconds.

    Raises
    ------
    FewerError
        When it cannot be read, has no unit of measure, or is not more than 0.

    Examples
    --------
    >>> parse_duration("10min"), parse_duration("1.5 h"), parse_duration(30)
    (600.0, 5400.0, 30.0)
    """
    if isinstance(text, str):
        match = _FORM.fullmatch(text)
        if match is None:
            raise FewerError(f"cannot read the time {text.strip()!r}; write for example 90s, 10min or 1.5h")
        number, unit = match.groups()
        if unit.lower() not in _SECONDS:
            why = (
                f"the unit of measure {unit!r} of the time {text.strip()!r} is unknown"
                if unit
                else (f"the time {text.strip()!r} has no unit of measure")
            )
            raise FewerError(f"{why}; write for example 90s, 10min or 1.5h")
        seconds = float(number) * _SECONDS[unit.lower()]
    else:
        try:
            seconds = float(text)
        except (TypeError, ValueError):
            raise FewerError(f"a time is text or seconds, for example 10min; got {str(text)[:60]}") from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise FewerError(f"the time must be more than 0, but {str(text).strip()!r} was given; write for example 10min")
    return seconds


def _seconds(value: str | float | None) -> float | None:
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(_seconds)]
"""Seconds, as a field of settings: ``"10min"`` is read, and on the command line it is written so."""
