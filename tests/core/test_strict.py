"""Settings say which value is wrong, and in what way."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from fewer.core.errors import FewerError
from fewer.core.strict import StrictSettings


class Grid(StrictSettings):
    spacing: Literal["auto", "native"] | tuple[float, ...] = "auto"
    init: str | None = None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ((float("nan"), 1.0), "spacing.0=nan: must be a finite number"),
        ((1.0, "x"), "spacing.1='x': must be a valid number"),
        ("atuo", "spacing cannot be 'atuo'; did you mean 'auto'?"),
        (3.0, "spacing=3.0: must be a valid tuple"),
    ],
)
def test_of_words_or_numbers_the_mistake_is_told_that_was_made(value, says) -> None:
    with pytest.raises(FewerError) as told:
        Grid.of({"spacing": value}, "command line")
    assert str(told.value) == f"command line: {says}"


def test_a_path_is_as_good_as_its_text() -> None:
    assert Grid.of({"init": Path("runs") / "first", "spacing": [1.0, 2.0]}) == Grid(
        init=str(Path("runs") / "first"), spacing=(1.0, 2.0)
    )


def test_a_long_value_is_shown_in_one_short_line() -> None:
    """A network in place of its name filled a page."""

    class Long:
        def __repr__(self) -> str:
            return "\n".join(["Net("] + ["  (layer): Linear()"] * 50)

    class Named(StrictSettings):
        network: str = "auto"

    with pytest.raises(FewerError, match=r"network=Net\( \(layer\)") as told:
        Named.of({"network": Long()})
    assert "\n" not in str(told.value) and len(str(told.value)) < 250


class Pair(StrictSettings):
    weights: tuple[float, float] = (1.0, 2.0)


@pytest.mark.parametrize(("given", "count"), [([1.0], 1), ([], 0), ([1.0, 2.0, 3.0], 3)])
def test_too_many_or_too_few_values_are_counted(given: list[float], count: int) -> None:
    with pytest.raises(FewerError, match=rf"weights=.*: 2 values are needed, separated by commas, and {count} given"):
        Pair.of({"weights": given})
