"""The demo of adaptation: rows that can be run, drawn ones among them, and words that call it simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewer.tasks.segment.adapt_demo import OURS, AdaptDemo, Rows
from fewer.tasks.segment.adapt_settings import AdaptSettings
from fewer.tasks.segment.papers_demo import PAPERS


@pytest.mark.parametrize("rows", [OURS, PAPERS], ids=["ours", "papers"])
def test_every_row_is_a_setting_that_is_known(rows: Rows) -> None:
    for name, chosen in rows.runs.items():
        settings = AdaptSettings.of(dict(chosen))
        assert settings.method == "ours" or name.startswith(settings.method)


@pytest.mark.parametrize("rows", [OURS, PAPERS], ids=["ours", "papers"])
def test_the_ends_of_the_scale_are_drawn(rows: Rows) -> None:
    assert {"source-only", "target-oracle"} <= set(rows.shown) <= set(rows.runs)


def test_the_result_says_that_it_is_simulated() -> None:
    made = AdaptDemo(Path("demo/report.html"), {"source-only": 0.1, "ours": 0.4})
    assert made.to_dict()["simulated"] is True and "simulated" in made.lines()[0]
    assert "ours 0.400" in made.lines()[0] and made.lines()[1] == "see demo/report.html"
