"""The page: self-contained, valid, safe against hostile names, the same every time, readable in light and dark."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_fixtures

import fewer.reports.page as page
from fewer.core.errors import FewerError
from fewer.reports.compression.data import RunReport
from fewer.reports.compression.html import SECTIONS, render, write

VOID = {"meta", "br", "link", "img", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Checks the balance of tags and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"attribute twice in <{tag}>"
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def _note(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            value = value or ""
            self.attributes.append((tag, name, value))
            if name == "id":
                self.ids.append(value)
            if name == "href":
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value)


def test_tags_balance_and_ids_are_unique(page):
    parsed = Page(page)
    assert [name for name, times in Counter(parsed.ids).items() if times > 1] == []


def test_every_reference_stays_on_the_page(page):
    parsed = Page(page)
    assert all(reference.startswith("#") for reference in parsed.references)
    assert {reference[1:] for reference in parsed.references} <= set(parsed.ids)


def test_nothing_is_loaded_from_elsewhere(page):
    parsed = Page(page)
    assert not re.search(r"https?:|//[a-z]+\.|@import|@font-face", page)
    pictures = [value for tag, name, value in parsed.attributes if (tag, name) == ("img", "src")]
    assert all(value.startswith("data:image/jpeg;base64,") for value in pictures)
    assert not {"link", "iframe", "object", "embed", "image", "use-external"} & set(parsed.tags)
    loading = {
        (tag, name) for tag, name, _ in parsed.attributes if name in ("src", "srcset", "data", "action", "xmlns")
    }
    assert loading <= {("img", "src")}
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]


def test_only_our_own_script_may_run(page):
    parsed = Page(page)
    assert parsed.tags["script"] == 1
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(value for tag, name, value in parsed.attributes if tag == "meta" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_hostile_names_are_text(page_of):
    page = page_of("long_names")
    parsed = Page(page)
    assert "<script>alert" not in page
    assert parsed.tags["script"] == 1
    # it is shown as it is in the heading, the tables, the command and the figure
    shown = "".join(parsed.texts)
    assert shown.count(report_fixtures.HOSTILE) >= 6
    assert report_fixtures.HOSTILE in next(
        text for text in parsed.texts if text.startswith("model.backbone") and "alert" in text
    )


def test_rendering_is_deterministic():
    assert render(report_fixtures.report("tiny")) == render(report_fixtures.report("tiny"))


def test_no_time_of_drawing_and_no_matplotlib_leftovers(page):
    for leftover in ("<!DOCTYPE svg", "<metadata", "matplotlib", "DejaVu", "#a1b2", "nan", "NaN"):
        assert leftover not in page.replace("<!DOCTYPE html>", "")


def test_each_section_is_there_when_it_has_data(page_of):
    full, bare = Page(page_of("realistic")), Page(page_of("bare"))
    assert {section.name for section in SECTIONS} <= set(full.ids)
    assert not {section.name for section in SECTIONS} & set(bare.ids)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_each_section_can_be_left_out_alone(section):
    parts = {
        "comparison": {"baselines": []},
        "worst": {"worst": []},
        "frontier": {"frontier": None},
        "layers": {"units": []},
        "curves": {"curves": []},
        "additivity": {"additivity": None},
        "contest": {"contest": []},
        "integers": {"integers": []},
        "search": {"search": None},
        "latency": {"latency": None},
        "recovery": {"recovery": None},
        "runtimes": {"runtimes": None},
        "sensing": {"sensing": None},
        "skipped": {"skipped": [], "data": None},
        "timings": {"timings": {}, "peak_memory_bytes": None},
        "reproduce": {"command": "", "environment": {}},
        "limits": {"limits": []},
    }
    ids = Page(render(RunReport.from_dict(report_fixtures.tiny() | parts[section.name]))).ids
    assert section.name not in ids
    expected = {other.name for other in SECTIONS} - {section.name, "comparison"}
    assert expected <= set(ids)


def test_the_verdict_comes_first_and_is_plain(page_of):
    page = page_of("missed")
    assert page.index("Budget not met", page.index("<body>")) < page.index("<h2>")
    assert "not the best result: ERK" in page
    assert page.count("is the relative output error") == 1


def test_figures_speak_to_those_who_cannot_see_them(page_of):
    parsed = Page(page_of("realistic"))
    labels = [value for tag, name, value in parsed.attributes if tag == "svg" and name == "aria-label"]
    boxes = [value for tag, name, value in parsed.attributes if tag == "svg" and name == "viewbox"]
    assert len(labels) == 2 * 8
    assert all(len(label) > 40 for label in labels)
    assert all(re.fullmatch(r"-?[\d.]+ -?[\d.]+ [\d.]+ [\d.]+", box) for box in boxes)


def test_axes_carry_names_and_units(page_of):
    shown = "".join(Page(page_of("realistic")).texts)
    for name in (
        "distortion (relative output error), log scale",
        "kept weights (% of the dense model)",
        "kept weights (% of the layer)",
        "weights removed (%)",
        "wall-clock time",
    ):
        assert name in shown


def test_a_log_axis_is_not_claimed_where_all_is_zero(page_of):
    assert "log scale" not in page_of("zero")


def test_write_leaves_two_whole_files(tmp_path):
    report = report_fixtures.report("tiny")
    page, data = write(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert RunReport.from_json(data.read_bytes()) == report


def test_write_into_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(FewerError, match="does not exist"):
        write(report_fixtures.report("bare"), tmp_path / "missing")


def palettes() -> list[dict[str, str]]:
    """The colours of the page: light, dark, print."""
    css = (Path(page.__file__).parent / "templates" / "page.css").read_text()
    found = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in found]


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_meets_wcag_aa():
    schemes = palettes()
    assert len(schemes) == 3
    for scheme in schemes:
        for text in ("ink", "muted", "ours", "good", "bad"):
            for ground in ("page", "soft"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
        assert contrast(scheme["good"], scheme["good-soft"]) >= 4.5
        assert contrast(scheme["bad"], scheme["bad-soft"]) >= 4.5
        assert contrast(scheme["ink"], scheme["ours-soft"]) >= 4.5
        for mark in ("other", *(f"c{index}" for index in range(1, 8))):
            assert contrast(scheme[mark], scheme["page"]) >= 3, mark
