"""Strategies of scikit-activeml that need vectors only, by name: ``skactiveml/MaxHerding``."""

from __future__ import annotations

import inspect
import warnings

import numpy as np

from fewer.core.errors import FewerError, near_match
from fewer.selection.distance import Unit
from fewer.selection.pool import Pool, Selection

__all__ = ["PREFIX", "STRATEGIES", "select_by_peer"]

PREFIX = "skactiveml/"
STRATEGIES = ("CoreSet", "MaxHerding", "ProbCover", "RandomSampling", "TypiClust")
LARGEST = 20_000
"""Images: these strategies hold a table of all pairs, which is 3 GB of doubles here."""


def select_by_peer(pool: Pool, name: str, count: int, seed: int = 0) -> Selection:
    """Let a strategy of scikit-activeml choose, on vectors of length 1.

    Parameters
    ----------
    pool, count, seed
        As for every method.
    name
        One of :data:`STRATEGIES`, without the prefix.

    Raises
    ------
    FewerError
        For an unknown name, a pool of more than 20,000 images, or when scikit-activeml is not installed.
    """
    if name not in STRATEGIES:
        raise FewerError(f"fewer cannot use the strategy {PREFIX}{name}{near_match(name, STRATEGIES)}")
    usable = pool.usable()
    if len(usable) > LARGEST:
        raise FewerError(
            f"{PREFIX}{name} compares all pairs of images, which does not fit in memory for {len(usable)} of them (at "
            f"most {LARGEST}); take coverage, kcenter, typiclust or probcover, which go block by block"
        )
    try:
        from skactiveml import pool as strategies
    except ImportError:
        raise FewerError(f"{PREFIX}{name} needs scikit-activeml; run: pip install 'fewer[select]'") from None
    strategy_class = getattr(strategies, name)
    settings = {"random_state": int(np.random.default_rng([seed, 13]).integers(1 << 31))}
    if "n_classes" in inspect.signature(strategy_class).parameters:
        settings["n_classes"] = 4  # as our own ProbCover; it is not known in a cold start
    labels = np.full(len(usable), np.nan)
    labels[np.isin(usable, pool.labelled)] = 0
    vectors = Unit().of(np.asarray(pool.features[usable], np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = np.asarray(strategy_class(**settings).query(vectors, labels, batch_size=count))
    return Selection.of(usable[chosen], f"chosen by {name} of scikit-activeml")
