"""The section that holds a run against other runtimes: words, figure and page."""

from __future__ import annotations

import pytest
import report_fixtures

from fewer.reports import RunReport
from fewer.reports.compression import words
from fewer.reports.compression.data import Runtimes
from fewer.reports.compression.html import render
from fewer.reports.compression.runtimes import planned


def runtimes(**changes):
    rows = [
        {"label": "fewer", "ours": True, "ms": 30.0, "times_faster": 4.0, "distortion": 0.02},
        {"label": "rival", "ms": 25.0, "times_faster": 4.8, "distortion": 0.01},
    ]
    rows[1] |= changes
    return Runtimes.model_validate({"rows": rows})


def test_a_rival_that_is_quicker_and_closer_is_named():
    assert "closer: rival." in words.runtimes_sentence(runtimes())


def test_a_rival_that_is_only_quicker_or_only_closer_is_not():
    for change in ({"distortion": 0.03}, {"ms": 31.0}, {"distortion": None}):
        told = words.runtimes_sentence(runtimes(**change))
        assert "No other runtime" in told and "rival" not in told


def test_a_run_slower_than_torch_is_not_called_faster():
    found = runtimes()
    found.rows[0].times_faster = 0.5
    assert "0.500 times the speed of the dense model" in words.runtimes_sentence(found)


def test_it_is_the_first_section_and_says_what_was_not_timed():
    page = render(report_fixtures.report("realistic"))
    assert page.index('id="runtimes"') < page.index('id="comparison"')
    for told in ("this CPU runs it in fp32", "the times of onnxruntime int8 spread widely", "16 held-out images"):
        assert told in page


def test_other_plans_are_drawn_only_for_the_same_threads_and_batch():
    values = report_fixtures.realistic()
    values["frontier"]["metric"] = "latency"
    report = RunReport.from_dict(values)
    assert report.runtimes is not None
    line = planned(report, report.runtimes)
    # the axis is milliseconds: a share of the dense model's time, here 30 ms x 4.8
    assert line[0][0] == pytest.approx(report.frontier.ours[0].cost * 144.0) and len(line) == len(report.frontier.ours)
    report.runtimes.threads = 2
    assert planned(report, report.runtimes) == []
