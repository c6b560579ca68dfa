"""Verbs of a task have the flags of that task: made from its settings, so that a setting is written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import Parameter

from fewer.cli.flags import flags_of
from fewer.core.errors import FewerError

if TYPE_CHECKING:
    from fewer.core.strict import StrictSettings
    from fewer.tasks import Task

__all__ = ["TaskFlags", "any_flags", "command_for", "task_of_words"]

ATTRIBUTES = {"train": "settings", "eval": "evaluate_settings", "predict": "predict_settings"}
"""Verbs of a task, and the attribute of a task with the settings that become their flags."""


class TaskFlags:
    """Stands in the signature of a verb where the flags of the task will be."""


def any_flags(models: Sequence[type[StrictSettings]]) -> type:
    """Flags of several settings at once, out of sight: for a command line whose task is not known yet.

    What is wrong is told when it is: that a folder does not exist comes before an option that its task has not.
    """
    kinds: dict[str, Any] = {}
    for model in models:
        for one in fields(flags_of(model, "Flags")):
            kind = get_args(one.type)[0]
            kinds[one.name] = kind if kinds.get(one.name, kind) == kind else str | None
    hidden = Parameter(negative="", show_default=False, show=False)
    rows = [(name, Annotated[kind, hidden], field(default=None)) for name, kind in kinds.items()]
    made = make_dataclass("AnyFlags", rows)
    made.__module__ = __name__  # as in flags_of
    return Parameter(name="*")(made)


def task_of_words(verb: str, words: list[str]) -> Task | None:
    """The task that a command line means, as far as that is known before it is parsed.

    Raises
    ------
    FewerError
        For an unknown ``--task``.
    """
    from fewer.tasks import open_task, task_for

    named = _value(words, "--task")
    if named is None and (config := _value(words, "--config")) is not None and Path(config).is_file():
        from fewer.core.toml import read_toml

        named = read_toml(config).get("task")
    if isinstance(named, str):
        return open_task(named)
    for word in _paths(words):
        try:
            return task_for(None, run=word, data=None if verb == "predict" else word)
        except FewerError:  # the verb itself will tell what is missing
            continue
    return None


def _value(words: list[str], flag: str) -> str | None:
    for index, word in enumerate(words):
        if word.startswith(flag + "="):
            return word.partition("=")[2]
        if word == flag and index + 1 < len(words):
            return words[index + 1]
    return None


def _paths(words: list[str]) -> list[str]:
    """Words that name a file or a folder; those that are surely no value of a flag come first."""
    there = [(i, word) for i, word in enumerate(words) if not word.startswith("-") and Path(word).exists()]
    sure = [word for i, word in there if i == 0 or not words[i - 1].startswith("--") or "=" in words[i - 1]]
    return sure + [word for _, word in there if word not in sure]


def command_for(verb: str, function: Callable[..., int], task: Task | None) -> Callable[..., int]:
    """A verb's function, with the flags of a task in place of :class:`TaskFlags`."""
    signature = inspect.signature(function, eval_str=True)
    parameters = []
    for one in signature.parameters.values():
        if one.annotation == TaskFlags | None:
            one = one.replace(annotation=_flags(verb, task) | None)
        parameters.append(one)

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> int:
        return function(*args, **keywords)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": int}
    del call.__wrapped__
    return call


def _flags(verb: str, task: Task | None) -> Any:
    attribute = ATTRIBUTES[verb]
    if task is not None:
        return flags_of(getattr(task, attribute), "TaskFlags")
    from fewer.tasks import usable_tasks

    return any_flags([getattr(one, attribute) for one in usable_tasks()])
