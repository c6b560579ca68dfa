"""The table that all methods stand in."""

from __future__ import annotations

import pytest

from fewer.core.errors import FewerError
from fewer.core.methods import Method, MethodTable


def test_rows_keep_their_order_and_the_first_is_the_default() -> None:
    table = MethodTable("step", [Method("b", 1, "first"), Method("a", 2, "second", "A paper (2020)")])
    assert list(table) == ["b", "a"] and table.default == "b" and len(table) == 2
    assert table.notes() == {"b": "first", "a": "second [A paper (2020)]"}


def test_two_rows_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="called 'a'"):
        MethodTable("step", [Method("a", 1, ""), Method("a", 2, "")])


def test_an_unknown_name_is_one_sentence() -> None:
    table = MethodTable("selection method", [Method("coverage", 1, "")])
    assert "coverage" in table and "nothing" not in table
    with pytest.raises(FewerError, match=r"unknown selection method 'coverag'; did you mean 'coverage'\?"):
        table["coverag"]
