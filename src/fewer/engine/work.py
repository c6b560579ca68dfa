"""What most steps of a compression are given: the model with its inputs, how it is to be done, and who is told."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fewer.core.progress import SILENT, Progress
from fewer.engine.prepare import Prepared
from fewer.engine.settings import Settings

__all__ = ["Work"]


@dataclass(frozen=True, eq=False)
class Work:
    """A prepared model, and how it is compressed.

    Attributes
    ----------
    prepared
        The original model, its units and its inputs.
    settings
        How distortion is measured, what is cut, how it is repaired, and how the model will be used.
    progress
        Is told about the stages.
    """

    prepared: Prepared
    settings: Settings
    progress: Progress = SILENT

    def under(self, settings: Settings) -> Work:
        """The same model with other settings."""
        return replace(self, settings=settings)

    def on(self, prepared: Prepared) -> Work:
        """The same settings on another model, or on other inputs."""
        return replace(self, prepared=prepared)
