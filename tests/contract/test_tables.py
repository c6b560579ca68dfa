"""What every table of methods promises: rows that say what they are, a card each, an error with the nearest name."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from fewer.cli.list import LISTS
from fewer.core.errors import FewerError
from fewer.core.methods import Method, MethodTable
from fewer.verbs.list_names import TABLES

CARDS = Path(__file__).parents[2] / "docs" / "methods"


def table_of(place: str) -> MethodTable:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


ROWS = [(name, row) for name, place in TABLES.items() for row in table_of(place).values()]


@pytest.mark.parametrize(("table", "row"), ROWS, ids=[f"{name}-{row.name}" for name, row in ROWS])
def test_a_row_says_what_it_is_and_has_a_card(table: str, row: Method) -> None:
    assert 10 < len(row.note) < 110 and not row.note.endswith("."), row.note
    card = CARDS / f"{table}-{row.name}.md"
    assert card.is_file(), f"write {card.name}: what it does, where it comes from, what it needs, when to use it"
    assert card.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_name_is_told_with_the_nearest_one(name: str) -> None:
    table = table_of(TABLES[name])
    with pytest.raises(FewerError, match=f"did you mean '{table.default}'"):
        table[table.default + "x"]
    assert name in LISTS and set(table) <= set(LISTS[name]())


def test_every_card_belongs_to_a_row() -> None:
    known = {f"{table}-{row.name}" for table, row in ROWS}
    assert {path.stem for path in CARDS.glob("*.md")} - {"index"} <= known
