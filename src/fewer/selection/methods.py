"""The table of selection methods. All have one signature: ``method(pool, count, seed)``."""

from __future__ import annotations

from dataclasses import dataclass

from fewer.core.errors import FewerError, near_match
from fewer.selection.coverage import select_coverage
from fewer.selection.peers import PREFIX, STRATEGIES, select_by_peer
from fewer.selection.pool import Method, Pool, Selection
from fewer.selection.probcover import select_probcover
from fewer.selection.saal import select_saal, select_saal_corrected
from fewer.selection.simple import select_foreground, select_kcenter, select_random
from fewer.selection.typical import select_typiclust
from fewer.selection.uncertainty import select_bald, select_entropy

__all__ = ["METHODS", "Entry", "check_method", "choose"]


@dataclass(frozen=True)
class Entry:
    """One method: its function, and one line that says what it does."""

    choose: Method
    note: str
    needs_predictions: bool = False


METHODS: dict[str, Entry] = {
    "coverage": Entry(
        select_coverage, "every kind of image, then the density of the pool; later also uncertainty (default)"
    ),
    "random": Entry(select_random, "every image with the same chance"),
    "foreground-random": Entry(select_foreground, "random among images that show some foreground"),
    "kcenter": Entry(select_kcenter, "greedy k-centre: always the image farthest from all chosen"),
    "typiclust": Entry(select_typiclust, "the most typical image of each cluster"),
    "probcover": Entry(select_probcover, "as many images as possible within a radius of a chosen one"),
    "saal": Entry(select_saal, "SAAL as its code was published, its shuffled corrupted features included"),
    "saal-corrected": Entry(select_saal_corrected, "SAAL with the features of the images themselves"),
    "entropy": Entry(select_entropy, "the least sure predictions; from the second round on", True),
    "bald": Entry(select_bald, "where several models disagree; from the second round on", True),
}


def choose(pool: Pool, method: str, count: int, seed: int = 0) -> Selection:
    """Choose images by the name of a method.

    Parameters
    ----------
    pool
        Vectors and what is known.
    method
        A key of :data:`METHODS`, or ``skactiveml/NAME``.
    count
        Images to choose.
    seed
        The same seed gives the same images.

    Raises
    ------
    FewerError
        For an unknown method, a count that the pool cannot give, or a method that needs what is not known.

    Examples
    --------
    >>> import numpy as np
    >>> pool = Pool(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32), labelled=np.arange(5))
    >>> sorted(choose(pool, "coverage", 45).rows.tolist()) == list(range(5, 50))
    True
    """
    check_method(method)
    free = len(pool.candidates())
    if not 1 <= count <= free:
        raise FewerError(f"{count} images cannot be chosen: {free} of the pool's {len(pool)} have no label yet")
    if method.startswith(PREFIX):
        return select_by_peer(pool, method.removeprefix(PREFIX), count, seed)
    return METHODS[method].choose(pool, count, seed)


def check_method(method: str) -> None:
    """Raise a :class:`FewerError` with the nearest valid name unless there is such a method."""
    known = [*METHODS, *(PREFIX + name for name in STRATEGIES)]
    if method not in known:
        raise FewerError(f"unknown selection method {method!r}{near_match(method, known)}")
