"""Verbs of a task have the flags of that task: made from its settings, so that a setting is written once."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Group, Parameter

from fewer.core.errors import FewerError

if TYPE_CHECKING:
    from fewer.core.strict import StrictSettings
    from fewer.tasks import Task

__all__ = ["TaskFlags", "any_flags", "command_for", "flags_of", "task_of_words"]

ATTRIBUTES = {"train": "settings", "eval": "evaluate_settings", "predict": "predict_settings"}
"""Verbs of a task, and the attribute of a task with the settings that become their flags."""
SHARED = ("seed", "device")
"""Settings that every verb has a flag for."""


class TaskFlags:
    """Stands in the signature of a verb where the flags of the task will be."""


def flags_of(model: type[StrictSettings], task: str = "") -> type:
    """A dataclass of flags, one per setting, all None unless they are given.

    Parameters
    ----------
    model
        Fields with a ``description``. ``GROUPS`` of the class, if it has them, are the headings of the help page.
    task
        Name for the heading of settings that have no group.

    Examples
    --------
    >>> from fewer.training.settings import LoopSettings
    >>> made = flags_of(LoopSettings)(steps=3)
    >>> made.steps, made.batch, hasattr(made, "seed")
    (3, None, False)
    """
    group_of = {name: title for title, names in getattr(model, "GROUPS", {}).items() for name in names}
    own = f"Settings of the task {task}" if task else "Settings"
    titles: dict[str, Group] = {}
    fields = {}
    for name, info in model.model_fields.items():
        if name in SHARED:
            continue
        title = group_of.get(name) or ("How it learns" if _of_the_loop(name) else own)
        group = titles.setdefault(title, Group(title, sort_key=5 + len(titles)))
        fields[name] = _flag(_kind(info.annotation), group=group, help=_help(info))
    return _dataclass(fields)


def any_flags(models: Sequence[type[StrictSettings]]) -> type:
    """Flags of several settings at once, out of sight: for a command line whose task is not known yet.

    What is wrong is told when it is: that a folder does not exist comes before an option that its task has not.
    """
    fields = {}
    for model in models:
        for name, info in model.model_fields.items():
            if name not in SHARED:
                kind = _kind(info.annotation)
                same = name not in fields or get_args(fields[name])[0] == kind | None
                fields[name] = _flag(kind if same else str, show=_of_the_loop(name), help=_help(info))
    return _dataclass(fields)


def _flag(kind: Any, **how: Any) -> Any:
    return Annotated[kind | None, Parameter(negative="", show_default=False, **how)]


def _dataclass(fields: Mapping[str, Any]) -> type:
    made = make_dataclass(
        "Flags",
        [(name, kind, field(default=None)) for name, kind in fields.items()],
        namespace={"__module__": __name__},
    )
    return Parameter(name="*")(made)


def _of_the_loop(name: str) -> bool:
    from fewer.training.settings import LoopSettings

    return name in LoopSettings.model_fields


def _options(annotation: Any) -> list[Any]:
    """The plain types and literals that an annotation is made of."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for part in get_args(annotation) for one in _options(part)]
    return [annotation]


def _kind(annotation: Any) -> Any:
    """What a flag takes. Everything but numbers and switches is text: the settings themselves read it."""
    parts = [part for part in _options(annotation) if part is not type(None)]
    return parts[0] if len(parts) == 1 and parts[0] in (int, float, bool) else str


def _help(info: Any) -> str:
    words = (info.description or "").rstrip(".")
    choices = [
        str(value) for part in _options(info.annotation) if get_origin(part) is Literal for value in get_args(part)
    ]
    if choices and not all(choice in words for choice in choices):
        words += f" ({', '.join(choices)})" if words else ", ".join(choices)
    default = info.default
    if isinstance(default, (str, int, float)) and not isinstance(default, bool):
        words += f" [{default}]"
    return words.strip()


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
        return flags_of(getattr(task, attribute), task.name)
    from fewer.tasks import TASKS, open_task

    models = []
    for name in TASKS:
        with contextlib.suppress(FewerError):  # a broken plug-in must not stop the others
            models.append(getattr(open_task(name), attribute))
    return any_flags(models)
