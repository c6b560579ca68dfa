"""The demo of adaptation: rows that can be run, drawn ones among them, and words that call it simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewer.tasks.segment.adapt_demo import RUNS, SHOWN, AdaptDemo
from fewer.tasks.segment.adapt_settings import AdaptSettings


@pytest.mark.parametrize("name", RUNS)
def test_every_row_is_a_setting_that_is_known(name: str) -> None:
    settings = AdaptSettings.of(dict(RUNS[name]))
    assert settings.method == "ours" or name.startswith(settings.method)


def test_the_ends_of_the_scale_and_the_default_are_drawn() -> None:
    assert set(SHOWN) <= set(RUNS) and {"source-only", "target-oracle"} <= set(RUNS)


def test_the_result_says_that_it_is_simulated() -> None:
    made = AdaptDemo(Path("demo/report.html"), {"source-only": 0.1, "ours": 0.4})
    assert made.to_dict()["simulated"] is True and "simulated" in made.lines()[0]
    assert "ours 0.400" in made.lines()[0] and made.lines()[1] == "see demo/report.html"
