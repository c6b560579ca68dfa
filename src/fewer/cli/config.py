"""Where a setting comes from. By kind, never by position: default < preset < file < environment < flag."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fewer.core.errors import FewerError, near_match
from fewer.core.toml import read_toml
from fewer.presets import preset_names, preset_note, preset_values

if TYPE_CHECKING:
    from typing_extensions import Self

    from fewer.engine.settings import Settings

__all__ = ["INPUTS", "preset_names", "preset_note", "resolve", "resolve_as"]


class _Schema(Protocol):
    @classmethod
    def of(cls, values: dict[str, Any], where: str = ...) -> Self: ...


S = TypeVar("S", bound=_Schema)

INPUTS = ("model", "images", "labelled", "budget")
"""Names that a file may give beside the settings, so that one file can describe a whole run."""
PREFIX = "FEWER_"
OTHERS = {
    "FEWER_NATIVE",
    "FEWER_NATIVE_LIB",
    "FEWER_ISA",
    "FEWER_PYTHON",
    "FEWER_SHARED_DATA",
    "FEWER_SCALESIM",
    "FEWER_SURFACE",
}
"""Variables that are no settings: of the native library, of scripts that call fewer, and of data for tests."""


def resolve(
    flags: Mapping[str, Any],
    preset: str | None = None,
    config: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Settings, dict[str, Any]]:
    """Merge all sources of the settings of a compression; see :func:`resolve_as`."""
    from fewer.engine.settings import Settings

    return resolve_as(Settings, flags, preset, config, environ)


def resolve_as(
    schema: type[S],
    flags: Mapping[str, Any],
    preset: str | None = None,
    config: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    folder: str = "",
    names: Sequence[str] = INPUTS,
) -> tuple[S, dict[str, Any]]:
    """Merge all sources of settings.

    Parameters
    ----------
    schema
        The class of the settings.
    flags
        What was given on the command line, by setting name.
    preset
        Name of a file in ``fewer/presets``; a config file may name one too.
    config
        TOML file: setting names, those of ``names``, and ``preset``.
    environ
        ``FEWER_SEED=3`` sets ``seed``, and so on for every setting.
    folder
        Part of ``fewer/presets`` that holds the presets of these settings.
    names
        What a file may give beside the settings.

    Returns
    -------
    settings
    inputs : dict
        Those of ``names`` that the file gave.

    Raises
    ------
    FewerError
        Naming the file, variable or flag that holds an unknown name or a bad value.
    """
    file: dict[str, Any] = {} if config is None else _flatten(read_toml(config))
    inputs = {name: file.pop(name) for name in names if name in file}
    named = file.pop("preset", None)
    for name, value in {**inputs, "preset": named}.items():
        parts = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(part, str) for part in parts):
            raise FewerError(f"{config}: {name}={value!r}: it must be a text")
    preset = preset or named
    merged: dict[str, Any] = {}
    sources = [
        ({} if preset is None else preset_values(preset, folder), f"preset {preset}"),
        (file, str(config)),
        (_from_environment(environ, schema), "environment"),
        (dict(flags), "command line"),
    ]
    for values, where in sources:
        if values:
            values = _split(values)
            # each source is checked by itself first, so that the sentence names the right one
            schema.of(values, where)
            merged |= values
    return schema.of(merged, "settings"), inputs


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    """Lift the ``[settings]`` table, if there is one, to the top."""
    table = values.pop("settings", {})
    return values | (table if isinstance(table, dict) else {"settings": table})


def _split(values: dict[str, Any]) -> dict[str, Any]:
    """Read lists that were written as one text, ``0.3,0.5``, in flags and variables."""
    values = dict(values)
    if isinstance(text := values.get("sparsities"), str):
        try:
            values["sparsities"] = () if text.strip() == "none" else tuple(map(float, text.strip(" ,").split(",")))
        except ValueError:
            raise FewerError(f"cannot read the sparsities {text!r}; write for example 0.3,0.5,0.9") from None
    for name in ("exclude", "baselines", "precisions", "measure"):
        if (found := values.get(name)) is not None:
            parts = list(found) if isinstance(found, (list, tuple)) else [found]  # a file may hold anything
            parts = [word.strip() for part in parts for word in str(part).split(",")]
            values[name] = tuple(word for word in parts if word and word != "none")
    return values


def _setting_names() -> set[str]:
    """Names of the settings of the compression and of every task."""
    import importlib
    import importlib.util
    import pkgutil

    import fewer.tasks
    from fewer.core.strict import StrictSettings
    from fewer.engine.settings import Settings

    names = set(Settings.model_fields)
    for task in pkgutil.iter_modules(fewer.tasks.__path__):
        where = f"fewer.tasks.{task.name}.settings"
        if task.ispkg and importlib.util.find_spec(where) is not None:
            for value in vars(importlib.import_module(where)).values():
                if isinstance(value, type) and issubclass(value, StrictSettings):
                    names |= set(value.model_fields)
    return names


def check_environment(environ: Mapping[str, str] = os.environ) -> None:
    """Refuse variables that begin like those of fewer and are none.

    Raises
    ------
    FewerError
        With the nearest name of a setting.

    Examples
    --------
    >>> check_environment({"FEWER_SEEDD": "3"})
    Traceback (most recent call last):
    ...
    fewer.core.errors.FewerError: environment: unknown variable FEWER_SEEDD; did you mean 'FEWER_SEED'?
    """
    given = [name for name in environ if name.startswith(PREFIX) and name not in OTHERS]
    if not given:
        return
    known = {PREFIX + name.upper() for name in _setting_names()} | OTHERS
    for name in given:
        if name not in known:
            raise FewerError(f"environment: unknown variable {name}{near_match(name, known)}")


def _from_environment(environ: Mapping[str, str], schema: Any) -> dict[str, Any]:
    from pydantic import TypeAdapter, ValidationError

    values: dict[str, Any] = {}
    as_text = getattr(schema, "TEXT", ("sparsities", "exclude", "baselines", "precisions", "measure"))
    for name, field in schema.model_fields.items():
        text = environ.get(PREFIX + name.upper(), "").strip()
        if not text:
            continue
        if name in as_text:
            values[name] = text
            continue
        kind: Any = field.annotation
        try:
            values[name] = None if text == "none" else TypeAdapter(kind).validate_python(text, strict=False)
        except ValidationError as error:
            raise FewerError(f"environment: {PREFIX}{name.upper()}={text!r}: {error.errors()[0]['msg']}") from None
    return values
