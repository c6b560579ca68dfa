"""The settings of a compression as flags; apart from the other flags, since making them imports pydantic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fewer.cli.flags import flags_of
from fewer.engine.settings import Settings

__all__ = ["SettingFlags"]

if TYPE_CHECKING:
    SettingFlags = Any
else:
    SettingFlags = flags_of(Settings, "SettingFlags")
