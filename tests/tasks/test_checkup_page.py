"""The page of a doctor, for every task that has one."""

from __future__ import annotations

from fewer.tasks.checkup_page import checkup_page
from fewer.tasks.findings import Finding
from fewer.tasks.quality.doctor import Examined


def test_findings_without_cases_are_told_too() -> None:
    page = checkup_page(
        Examined(3, 2, ("cat.png is missing",), ("all answers are yes",)), "records.json", "fewer doctor x"
    )
    assert page.badge == "1 error" and not page.good
    rows = [table.rows for table in page.sections[0].tables]
    assert rows == [
        [["the whole set", "cat.png is missing", "for a person"]],
        [["the whole set", "all answers are yes", "for a person"]],
    ]
    assert "cat.png is missing" in page.to_html()


def test_many_findings_of_one_check_are_cut() -> None:
    class Found:
        healthy = False
        meanings = {"tiny": ("error", "an image is tiny")}  # noqa: RUF012
        findings = tuple(Finding("tiny", "error", f"{i}.png", "3 pixels", "left out") for i in range(201))

        def lines(self) -> list[str]:
            return ["201 images"]

        def to_dict(self) -> dict[str, object]:
            return {"facts": {"images": 201, "classes": {"a": 200, "b": 1}, "sizes": []}}

    page = checkup_page(Found(), "photos/")
    (table,) = page.sections[0].tables
    assert table.title == "Error: an image is tiny" and len(table.rows) == 201 and table.rows[-1][0] == "and 1 more"
    assert page.badge == "201 errors" and page.sections[1].facts["Facts"]["classes"] == "a: 200; b: 1"
