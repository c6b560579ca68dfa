"""What stands beside curves in their file: checked when it is read, so that nothing later stumbles over it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fewer.core.errors import FewerError

__all__ = ["check_facts"]

_Count = Annotated[int, Field(ge=0, le=2**31)]


class _Open(BaseModel):
    """Names that are not known here are kept: another version may know them."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Settings(_Open):
    power: float = Field(default=0.0, ge=0)


class _Tokens(_Open):
    name: str
    tokens: _Count
    protected: _Count
    amounts: dict[str, _Count] = Field(min_length=1)
    distortion: float
    tried: list[dict[str, Any]]


class _Pixels(_Open):
    name: str
    pixels: _Count
    kept: int = Field(ge=1)
    of: int = Field(ge=1)
    gain: float = Field(default=1.0, gt=0)
    distortion: float
    tried: list[dict[str, Any]]


class _Machine(_Open):
    cpu: str
    threads: int = Field(ge=1)


class _Device(_Open):
    device: _Machine | None = None
    runtime: str | None = None
    against: str | None = None
    against_ms: float | None = Field(default=None, gt=0)
    torch_ms: float | None = Field(default=None, gt=0)
    runtimes: list[dict[str, Any]] | None = None
    energy: str | None = None
    warning: str | None = None


class _Reordering(_Open):
    order: list[_Count]


class _Facts(_Open):
    model: str | None = None
    state: str | None = None
    settings: _Settings | None = None
    tokens: _Tokens | None = None
    pixels: _Pixels | None = None
    device: _Device = Field(default_factory=_Device)
    reorderings: list[_Reordering] = Field(default_factory=list)


def check_facts(facts: Any, where: str) -> None:
    """Refuse facts of a wrong kind.

    Raises
    ------
    FewerError
        Naming the first one.

    Examples
    --------
    >>> check_facts({"settings": {"power": 1.0}}, "curves.npz")
    >>> check_facts({"tokens": 3}, "curves.npz")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: curves.npz is damaged: tokens: Input should be an object; sense the model again
    """
    try:
        _Facts.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "its facts"
        message = "Input should be an object" if first["type"] == "model_type" else first["msg"]
        raise FewerError(f"{where} is damaged: {name}: {message}; sense the model again") from None
