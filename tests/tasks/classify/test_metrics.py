"""Numbers against closed forms and loops."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from fewer.tasks.classify.metrics import bootstrap, calibration_error, confusion_matrix, doubt, matching, wilson


def test_wilson_is_the_root_of_its_equation() -> None:
    # the ends are where |share - p| equals z standard deviations of p
    for hits, n in ((3, 10), (18, 20), (0, 7), (500, 1000)):
        for p in wilson(hits, n):
            if 0 < p < 1:
                assert abs(hits / n - p) == pytest.approx(1.959964 * np.sqrt(p * (1 - p) / n), abs=1e-9)


def test_calibration_error_as_a_loop() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.uniform(0.3, 1, 200), rng.integers(0, 2, 200)], 1)
    total = 0.0
    for i in range(15):
        inside = (rows[:, 0] >= i / 15) & (rows[:, 0] < (i + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(rows[inside, 1].mean() - rows[inside, 0].mean())
    assert calibration_error(rows) == pytest.approx(total)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = bootstrap(values, np.mean, rounds=2000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_a_clear_permutation_is_found_as_by_trying_all() -> None:
    rng = np.random.default_rng(2)
    order = rng.permutation(5)
    counts = rng.integers(0, 3, (5, 5))
    counts[np.arange(5), order] += 20
    best = max(permutations(range(5)), key=lambda p: counts[np.arange(5), list(p)].sum())
    assert matching(counts).tolist() == list(best) == order.tolist()


def test_doubt_needs_a_reason() -> None:
    names = [f"kind{i}" for i in range(10)]
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 10, 400)
    right = np.where(rng.random(400) < 0.8, labels, rng.integers(0, 10, 400))
    assert doubt(confusion_matrix(labels, right, 10), names) == ""
    moved = doubt(confusion_matrix(labels, (right + 1) % 10, 10), names)
    assert "in another order" in moved and "kind0 is called kind1" in moved
    assert "near chance" in doubt(confusion_matrix(labels, rng.integers(0, 10, 400), 10), names)
    weak = np.where(rng.random(400) < 0.3, labels, rng.integers(0, 10, 400))
    assert doubt(confusion_matrix(labels, weak, 10), names) == ""
    few = np.array([0, 1, 2])
    assert doubt(confusion_matrix(few, (few + 1) % 10, 10), names) == ""  # three images say nothing
