"""Numbers and pictures of the page of an adaptation."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.tasks.segment.adapt_page import case_dices, interval
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
