"""What a selection method gets, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fewer.core.errors import FewerError

__all__ = ["BLOCK", "Choose", "Pool", "Selection", "blocks", "entropy", "shannon_entropy"]

BLOCK = 8192
"""Vectors that are in memory at once when a pool is gone through."""


def _rows() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Pool:
    """A pool of N images as vectors, and what is known about them.

    Parameters
    ----------
    features
        [N, d] float16 or float32, usually a memory map.
    labelled
        Rows that have a label or are waiting for one. They are never chosen, and they count as covered.
    excluded
        Rows that cannot be chosen: unreadable images, files that are gone. Their vectors mean nothing.
    predictions
        Class probabilities of a model: [N, C], or [S, N, C] of S members of an ensemble or S passes with dropout. Rows
        may be NaN where there is no prediction.
    uncertainty
        [N] one number per image, the higher the less sure; by default the entropy of ``predictions``.
    disagreement
        [N] how much several models differ; by default BALD of ``predictions``.
    foreground
        [N] share of foreground; NaN where it is unknown.
    corrupted
        Makes the [N, d] vectors of corrupted images when a method asks for them.

    Raises
    ------
    FewerError
        When the pool is empty, shapes do not fit together, or rows do not exist.

    Examples
    --------
    >>> pool = Pool(np.eye(4, dtype=np.float32), labelled=np.array([1]))
    >>> pool.candidates().tolist()
    [0, 2, 3]
    """

    features: np.ndarray
    labelled: np.ndarray = field(default_factory=_rows)
    excluded: np.ndarray = field(default_factory=_rows)
    predictions: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    disagreement: np.ndarray | None = None
    foreground: np.ndarray | None = None
    corrupted: Callable[[], np.ndarray] | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or not len(self.features) or not self.features.shape[1]:
            raise FewerError(f"a pool is a table of vectors, one row per image; got the shape {self.features.shape}")
        for name in ("labelled", "excluded"):
            rows = np.unique(np.asarray(getattr(self, name), np.int64))
            if len(rows) and not 0 <= rows[0] <= rows[-1] < len(self):
                raise FewerError(
                    f"the pool has {len(self)} images, so it has no row {rows[[0, -1]].tolist()} of {name}"
                )
            object.__setattr__(self, name, rows)
        for name, place in (("predictions", -2), ("uncertainty", -1), ("disagreement", -1), ("foreground", -1)):
            value = getattr(self, name)
            if value is not None and value.shape[place] != len(self):
                raise FewerError(f"{name} are for {value.shape[place]} images, the pool has {len(self)}")

    def __len__(self) -> int:
        return len(self.features)

    def usable(self) -> np.ndarray:
        """Rows whose vectors mean something."""
        keep = np.ones(len(self), bool)
        keep[self.excluded] = False
        return np.flatnonzero(keep)

    def candidates(self) -> np.ndarray:
        """Rows that can be chosen, rising."""
        keep = np.ones(len(self), bool)
        keep[self.excluded] = False
        keep[self.labelled] = False
        return np.flatnonzero(keep)

    def seen(self) -> np.ndarray:
        """Labelled rows whose vectors mean something."""
        return np.setdiff1d(self.labelled, self.excluded)

    def unsure(self) -> np.ndarray | None:
        """[N] uncertainty in 0..1 with 0 for unknown, or None when there is nothing to tell it from."""

        value = self.uncertainty
        if value is None:
            if self.predictions is None:
                return None
            value = entropy(self.predictions)
        value = np.nan_to_num(np.asarray(value, np.float64), nan=0.0)
        top = value.max()
        return value / top if top > 0 else value


@dataclass(frozen=True, eq=False)
class Selection:
    """Chosen images, the first one first.

    Attributes
    ----------
    rows
        [B] rows of the pool, all different.
    groups
        [B] number of the cluster that each one stands for, -1 where the method has none.
    stands_for
        [B] how many images of the pool are nearest to it among the chosen; 0 where the method does not say.
    scores
        [B] what it was ranked by.
    why
        [B] the reason in words.
    """

    rows: np.ndarray
    groups: np.ndarray
    stands_for: np.ndarray
    scores: np.ndarray
    why: tuple[str, ...]

    @classmethod
    def of(
        cls,
        rows: np.ndarray | list[int],
        why: str | list[str],
        *,
        groups: np.ndarray | list[int] | None = None,
        stands_for: np.ndarray | list[float] | None = None,
        scores: np.ndarray | list[float] | None = None,
    ) -> Selection:
        """Fill in what a method does not say; one reason may hold for all."""
        count = len(rows)
        return cls(
            np.asarray(rows, np.int64),
            np.full(count, -1) if groups is None else np.asarray(groups, np.int64),
            np.zeros(count) if stands_for is None else np.asarray(stands_for, float),
            np.zeros(count) if scores is None else np.asarray(scores, float),
            (why,) * count if isinstance(why, str) else tuple(why),
        )


Choose = Callable[[Pool, int, int], Selection]
"""``method(pool, count, seed)`` chooses ``count`` of the pool's candidates."""


def blocks(features: np.ndarray, rows: np.ndarray | None = None, size: int = BLOCK) -> Iterator[tuple[int, np.ndarray]]:
    """Go through vectors, or through some rows of them, a block at a time.

    Yields
    ------
    start, block
        Place of the first vector, and [at most size, d] float32 in memory.

    Examples
    --------
    >>> [(start, block.shape) for start, block in blocks(np.zeros((5, 2)), size=2)]
    [(0, (2, 2)), (2, (2, 2)), (4, (1, 2))]
    """
    total = len(features) if rows is None else len(rows)
    for start in range(0, total, size):
        part = features[start : start + size] if rows is None else features[rows[start : start + size]]
        yield start, np.asarray(part, np.float32)


def entropy(predictions: np.ndarray) -> np.ndarray:
    """Predictive entropy in nats.

    Parameters
    ----------
    predictions
        [N, C] probabilities, or [S, N, C], whose mean over S is taken. They need not sum to 1.

    Returns
    -------
    np.ndarray
        [N]; NaN where a prediction is.

    Examples
    --------
    >>> entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).round(3).tolist()
    [0.693, 0.0]
    """
    mean = np.asarray(predictions, np.float64)
    mean = mean.mean(0) if mean.ndim == 3 else mean
    mean = mean / np.maximum(mean.sum(-1, keepdims=True), 1e-30)
    return shannon_entropy(mean)


def shannon_entropy(p: np.ndarray) -> np.ndarray:
    """Of the distribution along the last axis, in nats."""
    # 0 log 0 is 0; adding 0 turns the -0.0 of a certain prediction into 0.0
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1) + 0.0
