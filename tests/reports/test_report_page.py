"""The plain page: the same numbers as JSON, nothing from elsewhere, and text of strangers stays text."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.reports.page import Chart, Page, Picture, Section, Series, Table, Tile, is_page, png_text


def _page() -> Page:
    chart = Chart(title="Loss", x="step", y="loss", series=[Series(label="a", x=[1, 2], y=[3.0, 1.0])], mark=2)
    section = Section(
        name="scores",
        title="Scores",
        words=["<b>words</b>"],
        tables=[Table(head=["case", "Dice"], rows=[["<script>alert(1)</script>", "0.9"]])],
        charts=[chart],
        pictures=[Picture(caption="a", png=png_text(np.zeros((3, 3, 3), np.uint8)))],
        facts={"Settings": {"seed": 3}},
        command="fewer train data",
        points=["one"],
    )
    return Page(
        title="lesions", badge="Trained", sentence="Well.", tiles=[Tile(name="Dice", value="0.9")], sections=[section]
    )


def test_a_page_comes_back_from_its_json() -> None:
    page = _page()
    assert Page.from_json(page.to_json()) == page
    assert is_page(page.to_json())
    assert not is_page("no json")
    with pytest.raises(FewerError, match="is not valid"):
        Page.from_json('{"kind": "page"}')


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    html = _page().to_html()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;words" in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "data:image/png;base64," in html
    assert html.count("<svg") >= 2  # wide and narrow
    assert html == _page().model_copy(update={"created": _page().created}).to_html()
