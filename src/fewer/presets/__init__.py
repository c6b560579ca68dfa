"""One TOML file per paper or use: settings with a name. The first comment line says what it is."""

from __future__ import annotations

from importlib import resources
from typing import Any

from fewer.core.errors import FewerError, near_match
from fewer.core.toml import read_toml

__all__ = ["preset_names", "preset_note", "preset_values"]


def _place(folder: str) -> Any:
    place = resources.files("fewer") / "presets"
    return place / folder if folder else place


def preset_names(folder: str = "") -> list[str]:
    """Names of the presets that come with the library, in alphabetical order; a task's own are in a folder.

    Examples
    --------
    >>> "lpvit" in preset_names()
    True
    """
    place = _place(folder)
    entries = place.iterdir() if place.is_dir() else ()  # not every task has presets
    return sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml"))


def preset_note(name: str, folder: str = "") -> str:
    """The first comment line of a preset: what it is."""
    text = (_place(folder) / f"{name}.toml").read_text("utf-8")
    return next((line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")), "")


def preset_values(name: str, folder: str = "") -> dict[str, Any]:
    """The settings of a preset, by name.

    Raises
    ------
    FewerError
        When there is none of that name; the sentence has the nearest one.
    """
    if name not in preset_names(folder):
        raise FewerError(f"unknown preset {name!r}{near_match(name, preset_names(folder))}")
    with resources.as_file(_place(folder) / f"{name}.toml") as path:
        return read_toml(path)
