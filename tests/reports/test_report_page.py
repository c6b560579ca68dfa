"""The plain page: the same numbers as JSON, nothing from elsewhere, and text of strangers stays text."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.reports.page import (
    Chart,
    Dots,
    Page,
    Picture,
    Section,
    Series,
    Strip,
    Table,
    Tile,
    is_page,
    lanes,
    png_text,
)


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
    page = _page()
    html = page.to_html()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;words" in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "data:image/png;base64," in html
    assert html.count("<svg") >= 2  # wide and narrow
    assert html == page.model_copy().to_html()


def test_a_strip_plot_has_a_dot_for_each_case() -> None:
    row = Dots(label="lesion", names=["a", "<b>", "c"], values=[0.5, 0.5, 0.0], missing=[False, False, True])
    strip = Strip(title="Dice of every case", x="Dice", missing="missed", rows=[row])
    page = _page()
    page.sections[0].strips = [strip]
    assert Page.from_json(page.to_json()) == page
    html = page.to_html()
    assert "<title>a: 0.500</title>" in html and "<title>&lt;b&gt;: 0.500</title>" in html
    assert "<title>c: missed</title>" in html
    assert "lesion 0.333 over 3" in html


@pytest.mark.parametrize("count", [1, 7, 500])
def test_dots_of_equal_value_lie_in_lanes(count: int) -> None:
    found = lanes([0.5] * count, 0.1)
    assert len(set(found)) == min(count, 7)
    assert max(map(abs, found)) <= 3
