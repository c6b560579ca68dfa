"""The task ``classify``: what verbs ask of it."""

from __future__ import annotations

from pathlib import Path

from fewer.tasks.classify.settings import EvaluateSettings, PredictSettings, TrainSettings
from fewer.tasks.task import Task

__all__ = ["Classify"]


class Classify(Task):
    """Classification: one class for every image.

    Examples
    --------
    >>> Classify().recognises("no-such-folder")
    False
    """

    name = "classify"
    note = "one class for every image"
    data = "a folder of images by class, or a table of labels"
    settings = TrainSettings
    evaluate_settings = EvaluateSettings
    predict_settings = PredictSettings

    def reads(self, inputs: str | Path) -> bool:
        """Ordinary image files are read by the engine."""
        return False
