"""Report: the page again from its numbers, and a sentence where there are none."""

from __future__ import annotations

from pathlib import Path


def test_the_page_is_the_same_when_it_is_written_again(fewer, compress) -> None:
    compress("net.py:net", "--budget=weights=50%")
    before = Path("run/report.html").read_bytes()
    Path("run/report.html").unlink()
    assert fewer("report", "run").code == 0
    assert Path("run/report.html").read_bytes() == before


def test_a_folder_without_a_report_is_told(fewer) -> None:
    assert fewer("report", "photos").code == 2
    assert "does not exist" in fewer("report", "nowhere").err
