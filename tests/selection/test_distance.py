"""Spaces in which distances are taken, and the nearest of some points."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.selection.distance import Unit, Whitened, nearest, squared_distances

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


def test_whitening_and_nearest():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(500, 5)) * [9, 3, 1, 0.1, 0.01] + 1).astype(np.float32)
    space = Whitened.fit(features, np.arange(500), components=3, power=0.5)
    points = space.of(features)
    np.testing.assert_allclose(np.cov(points.T), np.eye(3), atol=0.02)
    unit = Unit().of(features)
    rotation = Whitened.fit(features, np.arange(500), components=5, power=0.0).of(features)
    np.testing.assert_allclose(squared_distances(rotation, rotation), squared_distances(unit, unit), atol=1e-4)
    labels, squared = nearest(features, features[:4])
    full = ((features[:, None] - features[:4]) ** 2).sum(-1)
    assert (labels == full.argmin(1)).mean() > 0.99
    np.testing.assert_allclose(squared, full.min(1), rtol=1e-3, atol=1e-2)


def test_vectors_with_more_numbers_than_there_are_vectors_span_the_same_space(monkeypatch):
    """Pixels of whole pictures as vectors: a matrix of all pairs of numbers would fit into no memory."""
    features = np.random.default_rng(0).normal(size=(12, 200)).astype(np.float32)
    small = Whitened.fit(features, np.arange(12), components=5).of(features)
    monkeypatch.setattr("fewer.selection.distance._MANY", 10)
    assert np.allclose(
        np.abs(Whitened.fit(features, np.arange(12), components=5).of(features)), np.abs(small), atol=1e-4
    )
    wide = np.random.default_rng(1).normal(size=(6, 50_000)).astype(np.float32)
    assert np.isfinite(Whitened.fit(wide, np.arange(6), components=9).of(wide)).all()
