"""Times as people write them."""

import pytest

from fewer.core.duration import parse_duration
from fewer.core.errors import FewerError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10min", 600), (" 1.5 h ", 5400), ("2m", 120), (".5min", 30), (12, 12), ("3H", 10800)],
)
def test_times_that_can_be_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [("banana", "'banana'"), ("0s", "more than 0"), ("-3min", "more than 0"), ("10", "no unit"), ("10 days", "'days'"),
     ("", "''"), (0, "more than 0"), (float("nan"), "more than 0")],
)  # fmt: skip
def test_times_that_cannot(text, words):
    with pytest.raises(FewerError, match="10min") as told:
        parse_duration(text)
    assert words in str(told.value)
