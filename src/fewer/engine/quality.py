"""Quality on labelled data, given to a verb as an argument: what is measured there steers nothing and is only shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from fewer.core.errors import FewerError
from fewer.models.spec import LoadedModel
from fewer.tasks import TASKS, Quality, open_task, usable_tasks

__all__ = ["QualityLike", "interval_of", "labelled_rows", "quality_of"]

QualityLike = Callable[[nn.Module], Mapping[str, float]] | str | Path | None


def quality_of(loaded: LoadedModel, quality: QualityLike) -> Quality | None:
    """The quality that a user means: a function, or a folder of labelled data.

    A folder is read by the task that trained the model; of any other model, by the task that can judge it by such
    data.

    Raises
    ------
    FewerError
        When no task knows what to do with model and folder, or the folder is no such data.

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
    if loaded.task in TASKS:
        return open_task(str(loaded.task)).quality(loaded, quality)
    if not Path(quality).exists():
        raise FewerError(f"the labelled data {quality} does not exist; give a folder")
    able = [task for task in usable_tasks() if task.judges(loaded, quality)]
    if not able:
        known = "; ".join(f"{task.name} needs {task.data}" for task in usable_tasks())
        raise FewerError(
            f"no task can judge {loaded.name} by the labelled data {quality} ({known}); "
            "in Python, give quality= a function"
        )
    return able[0].quality(loaded, quality)


def interval_of(quality: Quality | None, name: str, value: float | None) -> list[float] | None:
    """Ends of the 95 % interval of a number, where its quality knows one.

    Examples
    --------
    >>> interval_of(None, "accuracy", 0.9) is None
    True
    """
    ask = getattr(quality, "interval", None)
    found = ask(name, value) if ask is not None and value is not None else None
    return None if found is None else [float(end) for end in found]


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
        {
            "name": name,
            "value": value,
            "dense": before.get(name),
            "higher_is_better": name not in lower,
            "note": note.partition("; ")[0] if number else note,  # what is odd about the data is said once
            "labelled": True,
            "interval": interval_of(quality, name, value),
            "dense_interval": interval_of(quality, name, before.get(name)),
        }
        for number, (name, value) in enumerate(after.items())
    ]
