"""Settings that refuse unknown names and bad values in one sentence, whatever they belong to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from fewer.core.errors import FewerError, near_match

__all__ = ["StrictSettings"]


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
        """Build settings from a dictionary; lists may stand for tuples.

        Raises
        ------
        FewerError
            For an unknown name (with the nearest valid one) or a bad value; ``where`` says whose.
        """
        for name in values:
            if name not in cls.model_fields:
                raise FewerError(f"{where}: unknown name '{name}'{near_match(name, cls.model_fields)}")
            _check_size(name, values[name], where)
        tidy = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        try:
            return cls(**tidy)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            if first["type"] == "literal_error":
                known = re.findall(r"'([^']+)'", first.get("ctx", {}).get("expected", ""))
                raise FewerError(
                    f"{where}: {name} cannot be {first['input']!r}{near_match(str(first['input']), known)}"
                ) from None
            message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            value = f"{name}={first['input']!r}: " if name else ""  # a rule between several values has no name
            raise FewerError(f"{where}: {value}{message}") from None


def _check_size(name: str, value: Any, where: str) -> None:
    """Refuse integers that no library below takes; a seed has 63 bits at most."""
    for one in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(one, int) and abs(one) >= 2**63:
            raise FewerError(f"{where}: {name}={str(one)[:30]}: integers below 2 to the power of 63 are possible")
