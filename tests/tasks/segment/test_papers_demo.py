"""The demo of the published adaptation methods: few labels for all but the oracle, and its own words on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewer.tasks.segment import adapt_demo, papers_demo
from fewer.tasks.segment.adapt_demo import Rows
from fewer.tasks.segment.adapt_settings import AdaptSettings
from fewer.tasks.segment.papers_demo import PAPERS


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
    assert done.page.with_suffix(".json").is_file()
