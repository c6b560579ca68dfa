"""Numbers and pictures of the page of an adaptation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fewer.tasks.segment.adapt_page import case_dices, interval, module_state
from fewer.tasks.segment.adapt_settings import AdaptSettings
from fewer.tasks.segment.evaluation import Evaluation
from fewer.tasks.segment.metrics import Score


def test_an_interval_holds_the_mean_and_narrows_with_cases() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 12)
    low, high = interval(values)
    more = interval(np.tile(values, 8))
    assert low < values.mean() < high and more[1] - more[0] < high - low
    assert interval(values) == (low, high)


def test_a_missed_structure_counts_nothing_and_an_absent_one_not_at_all() -> None:
    scores = [
        Score("a", "x", "found", 8, 2, 2, 0.8, 0.7, 1.0, 0.5),
        Score("a", "y", "missed", 0, 0, 9, None, None, None, None),
        Score("b", "x", "absent", 0, 0, 0, None, None, None, None),
    ]
    assert case_dices(Evaluation(tuple(scores))) == {"a": pytest.approx(0.4)}


@pytest.mark.parametrize(
    ("settings", "adapted", "name", "state"),
    [
        ({"method": "ms-mt"}, {"checks": {"safe": False}}, "translation", "refused as unsafe"),
        ({"method": "ms-mt"}, {"checks": {"safe": False}}, "curves", "on"),
        ({"method": "ms-mt"}, {"checks": {"safe": True}}, "curves", "not needed: the translator is used"),
        ({"method": "ms-mt", "without": ("curves",)}, {"checks": {"safe": True}}, "curves", "off"),
        ({"method": "contrasts"}, {}, "consistency", "off, unless --consistency gives it a weight"),
        ({"method": "contrasts", "consistency": 3.0}, {}, "consistency", "on"),
        ({"method": "contrasts"}, {"stages": {"train": None}}, "warm-start", "left out: too few steps"),
        ({"method": "contrasts"}, {"stages": {"plain": None}}, "warm-start", "on"),
        ({"method": "ours"}, {"stages": {"plain": None}}, "choice", "left out: too few steps"),
        ({"method": "ours"}, {"members": ["one", "two"]}, "warm-start", "on"),
    ],
)
def test_the_page_says_which_modules_took_part(settings, adapted, name, state) -> None:
    found = SimpleNamespace(**{"checks": {}, "stages": {}, "members": [], **adapted})
    run = SimpleNamespace(plan=SimpleNamespace(settings=AdaptSettings.of(settings)), adapted=found)
    assert module_state(run, name) == state  # type: ignore[arg-type]
