"""Where a setting comes from. By kind, never by position: default < preset < file < environment < flag."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.errors import FewerError, near_match

if TYPE_CHECKING:
    from fewer.verbs.settings import Settings

__all__ = ["INPUTS", "preset_names", "preset_note", "resolve"]

INPUTS = ("model", "images", "budget")
"""Names that a file may give beside the settings, so that one file can describe a whole run."""
PREFIX = "FEWER_"


def resolve(
    flags: Mapping[str, Any],
    preset: str | None = None,
    config: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> tuple[Settings, dict[str, Any]]:
    """Merge all sources of settings.

    Parameters
    ----------
    flags
        What was given on the command line, by setting name.
    preset
        Name of a file in ``fewer/presets``; a config file may name one too.
    config
        TOML file: setting names, and ``model``, ``images``, ``budget``, ``preset``.
    environ
        ``FEWER_SEED=3`` sets ``seed``, and so on for every setting.

    Returns
    -------
    settings : Settings
    inputs : dict
        ``model``, ``images`` and ``budget`` where the file gave them.

    Raises
    ------
    FewerError
        Naming the file, variable or flag that holds an unknown name or a bad value.
    """
    from fewer.verbs.settings import Settings, read_toml

    file: dict[str, Any] = {} if config is None else _flatten(read_toml(config))
    inputs = {name: file.pop(name) for name in INPUTS if name in file}
    named = file.pop("preset", None)
    preset = preset or named
    merged: dict[str, Any] = {}
    sources = [
        ({} if preset is None else _preset(preset), f"preset {preset}"),
        (file, str(config)),
        (_from_environment(environ), "environment"),
        (dict(flags), "command line"),
    ]
    for values, where in sources:
        if values:
            values = _split(values)
            # each source is checked by itself first, so that the sentence names the right one
            Settings.of(values, where)
            merged |= values
    return Settings.of(merged, "settings"), inputs


def preset_names() -> list[str]:
    """Names of the presets that come with the library, in alphabetical order."""
    folder = resources.files("fewer") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def preset_note(name: str) -> str:
    """The first comment line of a preset: what it is."""
    text = (resources.files("fewer") / "presets" / f"{name}.toml").read_text("utf-8")
    return next((line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")), "")


def _preset(name: str) -> dict[str, Any]:
    from fewer.verbs.settings import read_toml

    if name not in preset_names():
        raise FewerError(f"unknown preset {name!r}{near_match(name, preset_names())}")
    with resources.as_file(resources.files("fewer") / "presets" / f"{name}.toml") as path:
        return read_toml(path)


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    """Lift the ``[settings]`` table, if there is one, to the top."""
    table = values.pop("settings", {})
    return values | (table if isinstance(table, dict) else {"settings": table})


def _split(values: dict[str, Any]) -> dict[str, Any]:
    """Read lists that were written as one text, ``0.3,0.5``, in flags and variables."""
    values = dict(values)
    if isinstance(text := values.get("sparsities"), str):
        try:
            values["sparsities"] = tuple(float(part) for part in text.split(",") if part.strip())
        except ValueError:
            raise FewerError(f"cannot read the sparsities {text!r}; write for example 0.3,0.5,0.9") from None
    for name in ("exclude", "baselines", "precisions", "measure"):
        if (found := values.get(name)) is not None:
            parts = [found] if isinstance(found, str) else found
            parts = [word.strip() for part in parts for word in str(part).split(",")]
            values[name] = tuple(word for word in parts if word and word != "none")
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    from pydantic import TypeAdapter, ValidationError

    from fewer.verbs.settings import Settings

    values: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        text = environ.get(PREFIX + name.upper(), "").strip()
        if not text:
            continue
        if name in ("sparsities", "exclude", "baselines", "precisions", "measure"):
            values[name] = text
            continue
        kind: Any = field.annotation
        try:
            values[name] = None if text == "none" else TypeAdapter(kind).validate_python(text, strict=False)
        except ValidationError as error:
            raise FewerError(f"environment: {PREFIX}{name.upper()}={text!r}: {error.errors()[0]['msg']}") from None
    return values
