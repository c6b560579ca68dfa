"""Verbs of a task have the flags of that task, and before it is known those of all."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import get_args

import pytest

from fewer.cli.eval import eval_
from fewer.cli.predict import predict
from fewer.cli.task_flags import ATTRIBUTES, TaskFlags, any_flags, command_for, task_of_words
from fewer.cli.train import train
from fewer.core.errors import FewerError
from fewer.core.run import RunFolder
from fewer.tasks import BUILT_IN, open_task
from tests.support.tiny_tasks import TINY

VERBS = {"train": train, "eval": eval_, "predict": predict}


def flags(verb: str, task) -> set[str]:
    """Names of the flags that stand in a verb's signature in place of those of a task."""
    function, own = command_for(verb, VERBS[verb], task), inspect.signature(VERBS[verb], eval_str=True)
    (name,) = (name for name, one in own.parameters.items() if one.annotation == TaskFlags | None)
    kind = next(k for k in get_args(inspect.signature(function).parameters[name].annotation) if k is not type(None))
    return {one.name for one in fields(kind)}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_verb_has_the_settings_of_its_task_as_flags(verb, name):
    task = open_task(name)
    settings = getattr(task, ATTRIBUTES[verb])
    assert flags(verb, task) <= set(settings.model_fields)
    assert set(settings.model_fields) - flags(verb, task) <= {"seed", "device"}  # these every verb has


def test_before_the_task_is_known_the_flags_of_all_are_parsed_and_none_is_shown():
    known = flags("train", None)
    assert {"tpa", "warm_up", "distill", "view"} <= known  # of gait, segment, classify and detect3d
    made = any_flags([open_task(name).settings for name in BUILT_IN])
    assert all(one.default is None for one in fields(made))
    assert not any(get_args(one.type)[1].show for one in fields(made))


def told(verb: str, *words: str) -> str | None:
    """Name of the task that a command line means."""
    task = task_of_words(verb, list(words))
    return None if task is None else task.name


def test_the_task_is_told_by_its_flag_its_file_its_run_or_its_data(tmp_path):
    assert told("train", "x/", "--task", "gait") == told("train", "x/", "--task=gait") == "gait"
    (tmp_path / "s.toml").write_text('task = "classify"\n')
    assert told("train", "--config", str(tmp_path / "s.toml")) == "classify"
    (tmp_path / "set").mkdir()
    assert told("train", str(TINY["classify"].tiny_data(tmp_path / "set")), "--steps", "5") == "classify"
    assert told("train", str(tmp_path / "nowhere")) is None
    with pytest.raises(FewerError, match="did you mean 'gait'"):
        told("train", "--task", "gate")


def test_a_folder_that_is_the_value_of_a_flag_comes_last(tmp_path):
    for name, task in (("a", "gait"), ("b", "classify")):
        with RunFolder.create(tmp_path / name) as run:
            run.write_json("recipe", {"meta": {"task": task}})
    assert told("eval", "--out", str(tmp_path / "a"), str(tmp_path / "b")) == "classify"
