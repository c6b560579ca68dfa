"""The settings of an adaptation as flags; apart from the verb, since making them imports pydantic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fewer.cli.flags import flags_of
from fewer.tasks.segment.adapt_settings import UNUSED, AdaptSettings

__all__ = ["AdaptFlags"]

if TYPE_CHECKING:
    AdaptFlags = Any
else:
    AdaptFlags = flags_of(AdaptSettings, "AdaptFlags", UNUSED)
"""The settings of an adaptation as flags."""
