"""Tasks: what a model is for. Each brings its data reader, its metrics and its training; methods never import one.

A method that needs a task's images or quality is given them as arguments; only verbs look a task up, by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from fewer.core.errors import FewerError, near_match

if TYPE_CHECKING:
    from torch import nn

    from fewer.data.images import ImageSet
    from fewer.models.spec import LoadedModel

__all__ = ["TASKS", "Quality", "Task", "open_task"]

TASKS = {"segment": "fewer.tasks.segment.task"}
"""Name of each task and the module that is it."""


class Quality(Protocol):
    """How good a model is on annotated data: ``quality(model)`` gives numbers by name.

    ``lower_is_better`` names those for which less is better; ``note`` says where they come from.
    """

    lower_is_better: frozenset[str]
    note: str

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        """Evaluate a model."""
        ...


class Task(Protocol):
    """What verbs ask of a task. A module with these functions is one."""

    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    predict: Callable[..., Any]
    checkup: Callable[..., Any]
    repair: Callable[..., Any]
    warm_features: Callable[..., nn.Module]

    def images(self, loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> ImageSet:
        """Inputs of a trained model: ``part`` is ``calibration`` or ``heldout``."""
        ...

    def quality(self, loaded: LoadedModel, folder: str | Path) -> Quality:
        """How good a model is on the annotated cases of a folder that it was not trained on."""
        ...


def open_task(name: str) -> Task:
    """The task of a name.

    Raises
    ------
    FewerError
        With the nearest name.

    Examples
    --------
    >>> open_task("segmnt")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: unknown task 'segmnt'; did you mean 'segment'?
    """
    if name not in TASKS:
        raise FewerError(f"unknown task {name!r}{near_match(name, TASKS)}")
    return cast(Task, importlib.import_module(TASKS[name]))
