"""How typical an image is of what is around it."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.selection.typical import typicality

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


def test_typicality_is_the_inverse_mean_distance_to_the_nearest():
    line = np.array([[0.0], [1.0], [2.0], [10.0]])
    assert typicality(line, 2, np.random.default_rng(0)) == pytest.approx([1 / 1.5, 1 / 1, 1 / 1.5, 1 / 8.5], rel=1e-4)
