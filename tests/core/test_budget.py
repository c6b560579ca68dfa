"""What a person may write as a budget, and what each mistake is answered with."""

from __future__ import annotations

import pytest
from core_curves import curve_set, smooth_curves
from hypothesis import given
from hypothesis import strategies as st

from fewer.core.budget import METRICS, Budget, format_amount, model_budgets, parse_budgets
from fewer.core.errors import FewerError


@pytest.mark.parametrize(
    ("text", "metric", "value", "relative"),
    [
        ("weights=50%", "weights", 0.5, True),
        (" weights = 12.5 % ", "weights", 0.125, True),
        ("flops=0.5x", "flops", 0.5, True),
        ("flops=1x", "flops", 1.0, True),
        ("weights=100%", "weights", 1.0, True),
        ("macs=2.3G", "macs", 2.3e9, False),
        ("weights=1200000", "weights", 1.2e6, False),
        ("weights=1e6", "weights", 1e6, False),
        ("size=8MB", "size", 8_000_000.0, False),
        ("size=8MiB", "size", 8 * 1024.0**2, False),
        ("size=1kB", "size", 1000.0, False),
        ("size=1KiB", "size", 1024.0, False),
        ("size=8mb", "size", 8e6, False),
        ("size<=8MB", "size", 8e6, False),
        ("latency=12ms", "latency", 12.0, False),
        ("latency=1.5s", "latency", 1500.0, False),
        ("energy=5mJ", "energy", 0.005, False),
        ("energy=2J", "energy", 2.0, False),
        ("labels=100", "labels", 100.0, False),
        ("labels=1", "labels", 1.0, False),
        ("labels=2k", "labels", 2000.0, False),
        ("labels=5%", "labels", 0.05, True),
    ],
)
def test_readable(text, metric, value, relative):
    budget = Budget.parse(text)
    assert (budget.metric, budget.relative) == (metric, relative)
    assert budget.value == pytest.approx(value, rel=1e-15)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("weights=0%", "must be more than 0"),
        ("weights=0x", "must be more than 0"),
        ("weights=-5%", "must be more than 0"),
        ("weights=101%", "101 % .* more than the dense model costs; give at most 100%"),
        ("flops=1.5x", "1.5x.* more than the dense"),
        ("size=banana", "cannot read the amount 'banana'.*size=8MB"),
        ("size=", "cannot read the amount ''"),
        ("size=8", "no unit of measure; write for example size=8MB"),
        ("weights=0.5", "no unit of measure; write for example weights=0.5x"),
        ("size=8MX", "unknown unit of measure 'MX'.*size takes %, x, B, kB, MB"),
        ("latency=8MB", "unknown unit of measure 'MB'.*latency takes %, x, us, ms, s"),
        ("energy=5MJ", "unknown unit of measure 'MJ'"),
        ("weights=1e999", "must be more than 0|inf"),
        ("wieghts=50%", "unknown budget metric 'wieghts'.*did you mean 'weights'"),
        ("WEIGHTS=50%", "did you mean 'weights'"),
        ("zzz=50%", "known are cycles, energy, flops, he, labels, latency, levels, macs, rotations, size, weights"),
        ("labels=0", "must be more than 0"),
        ("labels=0.5", "no unit of measure; write for example labels=0.5x"),
        ("labels=120%", "more than the pool has"),
        ("=50%", "unknown budget metric ''"),
        ("weights", "has no '='"),
        ("", "empty"),
        ("   ", "empty"),
        ("weights=50%,", "empty"),
        ("weights=50%,weights=10%", "'weights' is given twice"),
    ],
)
def test_mistakes_are_told_in_one_sentence(text, says):
    with pytest.raises(FewerError, match=says) as error:
        parse_budgets(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_several_at_once():
    expected = (Budget("weights", 0.5, True), Budget("size", 8e6, False))
    assert parse_budgets("weights=50%, size=8MB") == expected
    assert parse_budgets(["weights=50%", "size=8MB"]) == expected
    assert parse_budgets([expected[0], "size=8MB"]) == expected
    assert parse_budgets(expected[0]) == expected[:1]
    with pytest.raises(FewerError, match="no budget was given"):
        parse_budgets([])


def test_limit_counts_fixed_costs_and_names_the_metrics_there_are():
    curves = curve_set({"weights": [[90.0, 9.0]]}, [[0.0, 1.0]], {"weights": 10.0})
    assert Budget.parse("weights=29%").limit(curves) == 29.0
    assert Budget.parse("weights=7k").limit(curves) == 7000.0
    with pytest.raises(FewerError, match="do not measure 'latency'; they have weights"):
        Budget.parse("latency=5ms").limit(curves)
    assert Budget.parse("latency=50%").limit(smooth_curves(3, 5)) == smooth_curves(3, 5).dense("latency") / 2


@pytest.mark.parametrize(
    ("text", "total", "count"),
    [("labels=100%", 7, 7), ("labels=29%", 100, 29), ("labels=1%", 10, 1), ("labels=3", 3, 3)],
)
def test_a_budget_of_labels_counts_images(text, total, count):
    assert Budget.parse(text).count(total) == count


@pytest.mark.parametrize(
    ("text", "says"),
    [("labels=8", "more than the pool.*at most labels=7"), ("labels=2.5", "whole number"), ("size=8MB", "not of size")],
)
def test_labels_that_cannot_be_given(text, says):
    with pytest.raises(FewerError, match=says):
        Budget.parse(text).count(7)


@given(st.sampled_from(sorted(METRICS)), st.floats(1.001, 1e15))
def test_amounts_round_trip_and_shown_amounts_are_never_too_small(metric, value):
    budget = Budget(metric, value, False)
    assert Budget.parse(str(budget)) == budget
    shown = Budget.parse(f"{metric}={format_amount(metric, value)}").value
    assert value * (1 - 1e-12) <= shown <= value * 1.02


@given(st.sampled_from(sorted(METRICS)), st.floats(1e-6, 1.0))
def test_shares_round_trip(metric, value):
    budget = Budget(metric, value, True)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_constructor_checks_too(value):
    with pytest.raises(FewerError, match="more than 0"):
        Budget("weights", value, False)
    with pytest.raises(FewerError, match="unknown budget metric 'flosp'; did you mean 'flops'"):
        Budget("flosp", 1.0, True)


@pytest.mark.parametrize(
    ("budget", "verb"), [("he=0.5x", "private compile"), ("levels=3", "private"), ("labels=9", "select")]
)
def test_budgets_of_other_work_name_their_command(budget: str, verb: str) -> None:
    with pytest.raises(FewerError, match=f"no budget of a model.*fewer {verb}.*{budget}"):
        model_budgets(f"weights=50%,{budget}")
    assert [str(b) for b in model_budgets("weights=50%,flops=0.5x")] == ["weights=50%", "flops=0.5x"]


@pytest.mark.parametrize("text", ["weights=50", "flops = 7", "latency=0.5x,weights=100"])
def test_a_number_that_lacks_its_percent_sign_is_asked_about(text):
    with pytest.raises(FewerError, match="% for a share of the model"):
        model_budgets(text)


@pytest.mark.parametrize(
    "text", ["weights=50%", "weights=0.05k", "flops=0.5x", "size=8MB", ["weights=50%", "size=8MB"]]
)
def test_other_budgets_are_taken_as_they_are(text):
    assert len(model_budgets(text)) == (2 if isinstance(text, list) else 1)


@pytest.mark.parametrize("value", [2, 50, 100, 101, 2500])
def test_a_budget_that_is_written_down_is_read_again_as_it_was(value):
    (again,) = model_budgets(str(Budget("weights", value, False)))
    assert again == Budget("weights", value, False)
