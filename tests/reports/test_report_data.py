"""The data of a report: round trip, strictness, and errors that name the field."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import report_fixtures
from pydantic import ValidationError

from fewer.core.errors import FewerError
from fewer.reports.compression.data import RunReport


@pytest.mark.parametrize("name", sorted(report_fixtures.FIXTURES))
def test_json_round_trip_keeps_everything(name):
    report = report_fixtures.report(name)
    again = RunReport.from_json(report.to_json())
    assert again == report
    assert again.to_json() == report.to_json()


def test_json_holds_the_values_that_were_given():
    given = report_fixtures.realistic()
    written = json.loads(report_fixtures.report("realistic").to_json())
    assert written["units"][7]["kept_weights"] == given["units"][7]["kept_weights"]
    assert written["additivity"]["points"] == given["additivity"]["points"]
    assert set(given) <= set(written)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.update(verdikt={}), ["'verdikt'", "did you mean 'verdict'?"]),
        (lambda v: v["verdict"]["budgets"][0].update(reachd=1.0), ["'verdict.budgets[0].reachd'", "'reached'"]),
        (lambda v: v["units"][3].update(sparsty=1.0), ["'units[3].sparsty'", "'sparsity'"]),
        (lambda v: v["frontier"]["ours"][0].update(mesured=1.0), ["'frontier.ours[0].mesured'", "'measured'"]),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_one(change, words):
    values = report_fixtures.realistic()
    change(values)
    with pytest.raises(FewerError) as caught:
        RunReport.from_dict(values)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda v, bad: v["units"][2].update(distortion=bad), "units[2].distortion"),
        (lambda v, bad: v["curves"][1]["distortion"].__setitem__(4, bad), "curves[1].distortion[4]"),
        (lambda v, bad: v["additivity"]["points"].__setitem__(0, [bad, 1.0]), "additivity.points[0][0]"),
        (lambda v, bad: v["timings"].update(sense=bad), "timings.sense"),
        (lambda v, bad: v["settings"].update(damping=bad), "settings.damping"),
        (lambda v, bad: v["baselines"][0]["quality"].update({"feature cosine": bad}), "baselines[0].quality"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_name(change, field, bad):
    values = report_fixtures.realistic()
    change(values, bad)
    with pytest.raises(FewerError) as caught:
        RunReport.from_dict(values)
    assert field in str(caught.value)


def test_nan_in_a_json_file_is_refused_too():
    text = report_fixtures.report("realistic").to_json().replace('"joint": 0.1083', '"joint": NaN')
    with pytest.raises(FewerError, match=r"additivity\.joint"):
        RunReport.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"verdict": 1}', "\x00"])
def test_what_is_not_a_report_gets_one_sentence(text):
    with pytest.raises(FewerError, match="report"):
        RunReport.from_json(text)


def test_another_schema_version_is_told():
    values = report_fixtures.bare() | {"schema_version": 2}
    with pytest.raises(FewerError, match="schema version 2"):
        RunReport.from_json(json.dumps(values))


def test_met_must_agree_with_the_numbers():
    values = report_fixtures.realistic()
    values["verdict"]["budgets"][0]["limit"] = 1.0
    with pytest.raises(FewerError, match="met is true, but weights=50% reached"):
        RunReport.from_dict(values)


def test_a_curve_of_two_lengths_and_a_choice_outside_are_refused():
    values = report_fixtures.realistic()
    values["curves"][0]["distortion"].pop()
    with pytest.raises(FewerError, match=r"patch_embed\.proj"):
        RunReport.from_dict(values)
    values = report_fixtures.realistic()
    values["curves"][0]["chosen"] = 99
    with pytest.raises(FewerError, match="99 is not one of them"):
        RunReport.from_dict(values)


def test_numpy_numbers_become_plain_ones():
    values = report_fixtures.realistic()
    values["verdict"]["distortion"] = np.float32(0.5)
    values["data"]["heldout"] = np.int64(3)
    values["units"][0]["shape"] = (384, 3, 14, 14)
    values["curves"][0]["sparsity"] = np.linspace(0, 1, 15)
    values["curves"][0]["distortion"] = np.linspace(0, 1, 15)
    values["additivity"]["points"] = np.ones((4, 2))
    report = RunReport.from_dict(values)
    assert type(report.verdict.distortion) is float
    assert type(report.data.heldout) is int
    assert json.loads(report.to_json())["additivity"]["points"] == [[1.0, 1.0]] * 4


def test_assignment_is_checked():
    report = report_fixtures.report("bare")
    with pytest.raises(ValidationError):
        report.peak_memory_bytes = math.nan
    report.timings = {"sense": 1.5}
    assert json.loads(report.to_json())["timings"] == {"sense": 1.5}


def test_names_that_no_page_can_carry_are_spelled_out():
    report = report_fixtures.report("long_names")
    assert report.data.skipped[1].file == "a\\udcff\\x00b.jpg"
    assert "\u202e" not in report.to_json()
    report.to_json().encode("utf-8")
