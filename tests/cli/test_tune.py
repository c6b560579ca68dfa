"""Tune on the command line: data that is not there is told before a model is made."""

from __future__ import annotations

from pathlib import Path


def test_records_that_are_not_there(fewer) -> None:
    told = fewer("tune", "nowhere", "--out=t")
    assert told.code == 2 and "nowhere" in told.err and not Path("t").exists()


def test_a_setting_with_a_wrong_value_has_its_neighbour(fewer) -> None:
    Path("r.json").write_text("[]")
    assert "did you mean 'cosine'" in fewer("tune", "r.json", "--rate-shape=cosin", "--out=t").err
