"""Quality on labelled data, given to a verb as an argument: what is measured there steers nothing and is only shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from fewer.core.errors import FewerError
from fewer.models.spec import LoadedModel
from fewer.tasks import TASKS, Quality, open_task

__all__ = ["QualityLike", "labelled_rows", "quality_of"]

QualityLike = Callable[[nn.Module], Mapping[str, float]] | str | Path | None


def quality_of(loaded: LoadedModel, quality: QualityLike) -> Quality | None:
    """The quality that a user means: a function, or the folder of labelled data of the model's own task.

    Raises
    ------
    FewerError
        When a folder is given for a model that no task has trained, or the folder is no such data.

    Examples
    --------
    >>> loaded = LoadedModel(nn.Identity(), "toy", {})
    >>> quality_of(loaded, lambda model: {"accuracy": 0.9})(loaded.model)
    {'accuracy': 0.9}
    """
    if quality is None:
        return None
    if callable(quality):
        return cast(Quality, quality)
    if loaded.task not in TASKS:
        raise FewerError(
            f"{loaded.name} was not trained by a task of fewer, so it is not known how {quality} is to be used; "
            "in Python, give quality= a function"
        )
    return open_task(loaded.task).quality(loaded, quality)


def labelled_rows(
    quality: Quality | None, before: Mapping[str, float], after: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Entries of a report's verdict: each number of the compressed model beside that of the dense one.

    Examples
    --------
    >>> labelled_rows(None, {"accuracy": 0.9}, {"accuracy": 0.8})[0]["dense"]
    0.9
    """
    lower = getattr(quality, "lower_is_better", frozenset())
    note = getattr(quality, "note", "on labelled data")
    return [
        {"name": name, "value": value, "dense": before.get(name), "higher_is_better": name not in lower, "note": note}
        for name, value in after.items()
    ]
