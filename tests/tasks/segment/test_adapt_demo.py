"""The demo of adaptation: rows that can be run, drawn ones among them, and words that call it simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewer.tasks.segment import adapt_demo, papers_demo
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


def test_the_published_methods_have_few_labels_and_the_oracle_all() -> None:
    few = {name: AdaptSettings.of(dict(chosen)).source_labels for name, chosen in PAPERS.runs.items()}
    assert few.pop("target-oracle") is None and set(few.values()) == {4} and {"ms-mt", "le-uda"} <= set(few)


def test_the_rows_reach_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt_demo, "COUNTS", {"source": 4, "target": 3, "test": 2})
    quick = {"batch": 1, "width": 2, "patch_voxels": 1024}
    runs = {name: {"method": name, **quick} for name in ("source-only",)}
    monkeypatch.setattr(papers_demo, "PAPERS", Rows(runs, tuple(runs), "Published", ("Four of ten.",)))
    done = papers_demo.demo(tmp_path / "out", steps=2)
    page = done.page.read_text("utf-8")
    assert set(done.dice) == set(runs) and "Published" in page and "Four of ten." in page


def test_the_result_says_that_it_is_simulated() -> None:
    made = AdaptDemo(Path("demo/report.html"), {"source-only": 0.1, "ours": 0.4})
    assert made.to_dict()["simulated"] is True and "simulated" in made.lines()[0]
    assert "ours 0.400" in made.lines()[0] and made.lines()[1] == "see demo/report.html"
