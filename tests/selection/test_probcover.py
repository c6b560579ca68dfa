"""The radius within which labels agree."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.selection.distance import squared_distances
from fewer.selection.probcover import pure_radius

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


def test_balls_of_the_radius_are_pure():
    points, labels = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 3
    radius = pure_radius(points, labels, 0.8)
    table = np.sqrt(squared_distances(points, points))
    pure = [not ((table[i] < r) & (labels != labels[i])).any() for r in (radius * 0.999,) for i in range(60)]
    assert np.mean(pure) >= 0.8
