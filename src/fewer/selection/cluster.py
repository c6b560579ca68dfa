"""k-means over a pool of any size."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewer.core.errors import FewerError
from fewer.selection.distance import Space, nearest
from fewer.selection.pool import Pool

__all__ = ["Clusters", "cluster"]

_SMALL = 20_000  # images up to which Lloyd's algorithm sees all of them in every step


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of a pool.

    Attributes
    ----------
    centres
        [k, d'] in the space that was clustered in.
    rows
        [n] rows of the pool that were clustered.
    labels, squared
        [n] cluster of each row, and its squared distance to the centre.
    """

    centres: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    squared: np.ndarray

    def sizes(self) -> np.ndarray:
        """[k] images per cluster."""
        return np.bincount(self.labels, minlength=len(self.centres))


def cluster(
    pool: Pool,
    count: int,
    space: Space,
    seed: int,
    *,
    init: Literal["k-means++", "random"] = "k-means++",
    tries: int = 1,
    weights: np.ndarray | None = None,
) -> Clusters:
    """Cluster all usable images of a pool by k-means.

    Up to 20,000 images are clustered by Lloyd's algorithm, larger pools by mini-batches of 10,000 that are read from
    the memory map; every image is then assigned to its nearest centre.

    Parameters
    ----------
    pool
        Labelled images are clustered too: they say what is covered.
    count
        Clusters; at most as many as there are usable images.
    space
        Where distances are taken.
    seed
        Of the start.
    init
        ``k-means++`` or ``random``.
    tries
        Starts, of which the best is kept (small pools only).
    weights
        [number of usable images] how much each one counts.

    Raises
    ------
    FewerError
        When scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans, MiniBatchKMeans
        from sklearn.exceptions import ConvergenceWarning
    except ImportError:
        raise FewerError("clustering needs scikit-learn; run: pip install 'fewer[select]'") from None
    rows = pool.usable()
    count = max(1, min(count, len(rows)))
    state = int(np.random.default_rng([seed, 3]).integers(1 << 31))
    with warnings.catch_warnings():
        # fewer distinct images than clusters: some clusters stay empty, which is what they should do
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(rows) <= _SMALL:
            model = KMeans(count, init=init, n_init=tries, random_state=state)  # pyright: ignore[reportArgumentType]
            centres = model.fit(space.of(pool.features[rows]), sample_weight=weights).cluster_centers_
        else:
            centres = _in_batches(MiniBatchKMeans, pool.features, rows, count, space, state, init, weights)
    labels, squared = nearest(pool.features, centres, space, rows)
    return Clusters(centres, rows, labels, squared)


def _in_batches(
    model_class: type,
    features: np.ndarray,
    rows: np.ndarray,
    count: int,
    space: Space,
    state: int,
    init: str,
    weights: np.ndarray | None,
) -> np.ndarray:
    rng = np.random.default_rng(state)
    size = max(10_000, 3 * count)
    model = model_class(count, init=init, n_init=1, random_state=state, batch_size=size)
    for _ in range(40):
        drawn = np.sort(rng.choice(len(rows), min(size, len(rows)), replace=False))
        batch = space.of(features[rows[drawn]])
        model.partial_fit(batch, sample_weight=None if weights is None else weights[drawn])
    return model.cluster_centers_
