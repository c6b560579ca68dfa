"""Settings that refuse unknown names and bad values in one sentence, whatever they belong to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from fewer.core.errors import FewerError, near_match

__all__ = ["StrictSettings"]

_LONG = 120
"""Characters of a wrong value that a message shows."""


class StrictSettings(BaseModel):
    """A frozen set of named values.

    Examples
    --------
    >>> class Oven(StrictSettings):
    ...     degrees: int = 180
    >>> Oven.of({"degree": 200})
    Traceback (most recent call last):
    fewer.core.errors.FewerError: settings: unknown name 'degree'; did you mean 'degrees'?
    >>> Oven.of({"degrees": 200})  # what is not said, is at its default
    Oven(degrees=200)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Only what differs from the defaults: the other thirty settings would hide it."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value != field.get_default(call_default_factory=True):
                yield name, value

    def __str__(self) -> str:
        return repr(self)

    @classmethod
    def of(cls, values: dict[str, Any], where: str = "settings") -> Self:
        """Build settings from a dictionary; lists may stand for tuples, and paths for their text.

        Raises
        ------
        FewerError
            For an unknown name (with the nearest valid one) or a bad value; ``where`` says whose.
        """
        for name in values:
            if name not in cls.model_fields:
                raise FewerError(f"{where}: unknown name '{name}'{near_match(name, cls.model_fields)}")
            _check_size(name, values[name], where)
        tidy = {name: _plain(value) for name, value in values.items()}
        try:
            return cls(**tidy)
        except ValidationError as error:
            first, name = _likeliest(error)
            if first["type"] == "literal_error":
                known = re.findall(r"'([^']+)'", first.get("ctx", {}).get("expected", ""))
                raise FewerError(
                    f"{where}: {name} cannot be {_shown(first['input'])}{near_match(str(first['input']), known)}"
                ) from None
            if told := _wrong_count(error, name.split(".")[0]):
                raise FewerError(f"{where}: {told}") from None
            message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            value = f"{name}={_shown(first['input'])}: " if name else ""  # a rule between several values has no name
            raise FewerError(f"{where}: {value}{message}") from None

    def changed(self, values: dict[str, Any]) -> Self:
        """These settings with other values of some names; what nobody gave is still not given.

        Raises
        ------
        FewerError
            As :meth:`of`.
        """
        if not values:
            return self
        return self.of({**{name: getattr(self, name) for name in self.model_fields_set}, **values})


def _shown(value: Any) -> str:
    """A value in one line, cut where it is long: a network would fill a page."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _likeliest(error: ValidationError) -> tuple[Any, str]:
    """The mistake to tell, and the name of what has it.

    A value that may be a word or numbers fails once for each; whoever gave numbers must not be told of the words.
    """
    mistakes = error.errors()
    field = mistakes[0]["loc"][:1]
    same = [one for one in mistakes if one["loc"][:1] == field]
    told = next((one for one in same if one["type"] != "literal_error"), same[0])
    if isinstance(same[0]["input"], str):
        told = same[0]
    # between the field and the place in a list stands the type that was tried, which is no name of the user's
    parts = [str(part) for index, part in enumerate(told["loc"]) if index == 0 or isinstance(part, int)]
    return told, ".".join(parts)


def _wrong_count(error: ValidationError, name: str) -> str:
    """What to say of a fixed number of values of which too many or too few were given; empty for other mistakes."""
    mine = [one for one in error.errors() if one["loc"][:1] == (name,)]
    places = [int(one["loc"][-1]) for one in mine if one["type"] == "missing" and isinstance(one["loc"][-1], int)]
    if places:
        wanted, given = max(places) + 1, mine[0]["input"]
    else:
        long = next((one for one in mine if one["type"] == "too_long"), None)
        if long is None:
            return ""
        wanted, given = long.get("ctx", {})["max_length"], long["input"]
    return f"{name}={_shown(given)}: {wanted} values are needed, separated by commas, and {len(given)} given"


def _check_size(name: str, value: Any, where: str) -> None:
    """Refuse integers that no library below takes; a seed has 63 bits at most."""
    for one in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(one, int) and abs(one) >= 2**63:
            raise FewerError(f"{where}: {name}={str(one)[:30]}: integers below 2 to the power of 63 are possible")
