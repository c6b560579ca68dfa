"""Lists: every one has entries with a note, and a wrong name has its neighbour."""

from __future__ import annotations

import json

import pytest

from fewer.cli.list import LISTS


@pytest.mark.parametrize("name", LISTS)
def test_each_list_has_entries_that_say_something(name: str) -> None:
    found = LISTS[name]()
    assert found and all(note.strip() for note in found.values())


def test_every_demo_is_listed(fewer) -> None:
    from fewer.cli.demo import STAGES, TASK_DEMOS
    from fewer.cli.demo_data import DATA

    found = json.loads(fewer("list", "demos", "--json").out)
    assert {*STAGES, *TASK_DEMOS, "adapt", "low-bit", "private", "select", "uda", *DATA} == set(found)


def test_a_list_is_found_by_its_name(fewer) -> None:
    assert json.loads(fewer("list", "published", "--json").out).keys() == {"sparsegpt", "wanda"}
    told = fewer("list", "modls")
    assert told.code == 2 and "did you mean 'models'" in told.err
