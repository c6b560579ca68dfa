"""Made-up pools: vectors in heaps of different size."""

from __future__ import annotations

import numpy as np

from fewer.selection.pool import Pool


def heaps(sizes=(40, 25, 10, 5), dim=6, seed=0, spread=0.05) -> tuple[np.ndarray, np.ndarray]:
    """Vectors in a few heaps of different size, in a random order, and the heap of each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), dim))
    heap = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (centres[heap] + rng.normal(0, spread, (len(heap), dim))).astype(np.float32), heap


def full_pool(labelled=(), excluded=(), seed=0) -> Pool:
    """A pool that has everything that any method may need."""
    features, _ = heaps(seed=seed)
    rng = np.random.default_rng(seed + 1)
    samples = rng.dirichlet(np.ones(3), size=(4, len(features)))
    return Pool(
        features,
        labelled=np.array(labelled, int),
        excluded=np.array(excluded, int),
        predictions=samples,
        foreground=rng.random(len(features)) * (rng.random(len(features)) < 0.7),
        corrupted=lambda: features + rng.normal(0, 1, features.shape),
    )
