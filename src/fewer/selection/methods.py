"""The table of selection methods. All have one signature: ``method(pool, count, seed)``."""

from __future__ import annotations

from fewer.core.errors import FewerError, near_match
from fewer.core.methods import Method, MethodTable
from fewer.selection.coverage import select_coverage
from fewer.selection.peers import PREFIX, STRATEGIES, select_by_peer
from fewer.selection.pool import Choose, Pool, Selection
from fewer.selection.probcover import select_probcover
from fewer.selection.saal import select_saal, select_saal_corrected
from fewer.selection.simple import select_foreground, select_kcenter, select_random
from fewer.selection.typical import select_typiclust
from fewer.selection.uncertainty import select_bald, select_entropy

__all__ = ["METHODS", "check_method", "choose"]


METHODS: MethodTable[Choose] = MethodTable(
    "selection method",
    [
        Method(
            "coverage", select_coverage, "every kind of image, then the density of the pool; later also uncertainty"
        ),
        Method("random", select_random, "every image with the same chance"),
        Method("foreground-random", select_foreground, "random among images that show some foreground"),
        Method(
            "kcenter",
            select_kcenter,
            "greedy k-centre: always the image farthest from all chosen",
            "Core-set (Sener and Savarese, ICLR 2018)",
        ),
        Method(
            "typiclust", select_typiclust, "the most typical image of each cluster", "TypiClust (Hacohen, ICML 2022)"
        ),
        Method(
            "probcover",
            select_probcover,
            "as many images as possible within a radius of a chosen one",
            "ProbCover (Yehuda, NeurIPS 2022)",
        ),
        Method(
            "saal",
            select_saal,
            "SAAL as its code was published, its shuffled corrupted features included",
            "SAAL (EMBC 2022)",
        ),
        Method("saal-corrected", select_saal_corrected, "SAAL with the features of the images", "SAAL (EMBC 2022)"),
        Method(
            "entropy",
            select_entropy,
            "the least sure predictions; from the second round on",
            needs=("predictions",),
        ),
        Method(
            "bald",
            select_bald,
            "where several models disagree; from the second round on",
            "BALD (Houlsby, 2011)",
            ("predictions",),
        ),
    ],
)
"""Every way to choose images; the first one is the default."""


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
    return METHODS[method].run(pool, count, seed)


def check_method(method: str) -> None:
    """Raise a :class:`FewerError` with the nearest valid name unless there is such a method."""
    known = [*METHODS, *(PREFIX + name for name in STRATEGIES)]
    if method not in known:
        raise FewerError(f"unknown selection method {method!r}{near_match(method, known)}")
