"""Which task is meant, and what is said where that cannot be told."""

from __future__ import annotations

import json
import os

import pytest

from fewer.core.errors import FewerError
from fewer.tasks import task_for, task_of_run
from fewer.tasks.folders import device_of

as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def test_a_run_that_says_no_task_is_named_and_not_the_data(tmp_path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "run").mkdir()
    for run, says in (("nope", "is no run folder"), ("run", r"holds no recipe\.json")):
        with pytest.raises(FewerError, match=f"{run} {says}"):
            task_for(None, run=tmp_path / run, data=tmp_path / "img")


@pytest.mark.parametrize(
    "text", ["[", "[1]", "null", '{"meta": 3}', '{"meta": {"task": [1]}}', '{"meta": {"task": "x"}}']
)
def test_a_damaged_recipe_is_told_or_names_no_task(tmp_path, text) -> None:
    (tmp_path / "recipe.json").write_text(text)
    try:
        assert task_of_run(tmp_path) is None
    except FewerError as error:
        assert "recipe.json" in str(error) and text == "["


def test_words_that_are_no_paths_name_no_task() -> None:
    assert task_of_run("a\0b") is None and task_of_run("x" * 5000) is None


@as_user
def test_no_permission_is_told_as_that(tmp_path) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    for place in (run, data):
        place.mkdir()
    (run / "recipe.json").write_text(json.dumps({"meta": {"task": "segment"}}))
    for place in (run, data):
        place.chmod(0)
        try:
            with pytest.raises(FewerError, match=f"no permission to read {place}"):
                task_for(None, run=run if place is run else None, data=data)
        finally:
            place.chmod(0o755)


@pytest.mark.parametrize(
    "name", ["mps", "foo", "", "cpu:x", "meta", "xla", "cuda:99", "privateuseone", "x" * 300, "\0"]
)
def test_a_device_that_is_not_here_is_refused(name) -> None:
    with pytest.raises(FewerError, match="cpu") as told:
        device_of(name)
    assert "\n" not in str(told.value) and len(str(told.value)) < 1000


@pytest.mark.parametrize("name", [3, None, [], b"segment", "segmnt", ""])
def test_a_name_of_another_kind_is_an_unknown_task(name) -> None:
    from fewer.tasks import open_task

    with pytest.raises(FewerError, match="unknown task"):
        open_task(name)
