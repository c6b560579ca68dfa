"""Entropy, BALD and the probe against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.selection.pool import entropy
from fewer.selection.uncertainty import bald_score, probe_predictions
from tests.selection.pools import heaps

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")


def test_entropy_and_bald_against_their_definitions():
    samples = np.random.default_rng(0).dirichlet(np.ones(4), size=(5, 7))
    mean = samples.mean(0)
    wanted = np.array([-sum(p * np.log(p) for p in row) for row in mean])
    np.testing.assert_allclose(entropy(samples), wanted)
    inner = np.array([[-sum(p * np.log(p) for p in row) for row in s] for s in samples]).mean(0)
    np.testing.assert_allclose(bald_score(samples), wanted - inner)


def test_the_probe_predicts_and_is_unsure_between_the_heaps():
    features, heap = heaps(sizes=(30, 30), spread=0.1)
    known = np.concatenate([np.flatnonzero(heap == h)[:4] for h in (0, 1)])
    between = (features[heap == 0].mean(0) + features[heap == 1].mean(0)) / 2
    samples = probe_predictions(np.vstack([features, between]).astype(np.float32), known, heap[known])
    assert samples.shape == (8, 61, 2) and (samples.mean(0)[:60].argmax(1) == heap).all()
    assert entropy(samples)[:60].mean() < entropy(samples)[60]
    with pytest.raises(FewerError, match="all labels so far are of one class"):
        probe_predictions(features, known, np.zeros(len(known)))
