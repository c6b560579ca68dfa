"""A labelled set of images: names, labels, parts, and the classes in the order of the labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.tasks.classify.pictures import Pictures

__all__ = ["ClassifyData", "holdout"]

_SPLIT = 1
"""Keeps the draw of the part that judges apart from other draws."""


@dataclass(frozen=True, eq=False)
class ClassifyData:
    """Images with labels.

    Attributes
    ----------
    root
        Where the set lies.
    pictures
        One per row.
    names
        Of the rows; the same on every machine, and no two alike.
    labels
        [N], an index into ``classes``.
    classes
        Names of the classes.
    parts
        ``train``, ``test`` or empty, one per row.
    model_classes
        Names of the outputs of the model that the set is for, in their order; empty unless a file beside it says so.
    kind
        The format, in words.
    """

    root: Path
    pictures: Pictures
    names: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    parts: tuple[str, ...] = ()
    model_classes: tuple[str, ...] = ()
    kind: str = ""
    skipped: tuple[tuple[str, str], ...] = field(default=())

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise FewerError(f"{self.root} holds no labelled image")
        if not self.parts:
            object.__setattr__(self, "parts", ("",) * len(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, part: str) -> np.ndarray:
        """Row numbers of a part: ``train``, ``test`` or ``all``.

        Raises
        ------
        FewerError
            When the set has no such part.
        """
        if part == "all":
            return np.arange(len(self))
        found = np.flatnonzero(np.array(self.parts) == part)
        if not len(found):
            known = sorted({name for name in self.parts if name} | {"all"})
            raise FewerError(f"{self.root} has no part {part!r}; it has {', '.join(known)}")
        return found

    @property
    def has_parts(self) -> bool:
        """Whether the set says what is for training and what for testing."""
        return {"train", "test"} <= set(self.parts)

    def count(self, rows: np.ndarray | None = None) -> dict[str, int]:
        """Images of each class."""
        labels = self.labels if rows is None else self.labels[rows]
        return {name: int((labels == i).sum()) for i, name in enumerate(self.classes)}


def holdout(data: ClassifyData, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that train and rows that judge: the set's own parts, else a share of each class.

    The draw depends on the names and the seed alone, so that it is the same on every machine.

    Raises
    ------
    FewerError
        When nothing would be left to train.

    Examples
    --------
    >>> from fewer.tasks.classify.pictures import ArrayPictures
    >>> pixels, names = np.zeros((10, 2, 2), np.uint8), tuple("abcdefghij")
    >>> data = ClassifyData(Path("x"), ArrayPictures(pixels), names, np.arange(10) % 2, ("even", "odd"))
    >>> train, judge = holdout(data, 0.2, seed=0)
    >>> len(train), data.labels[judge].tolist()
    (8, [1, 0])
    """
    if data.has_parts:
        return data.rows("train"), data.rows("test")
    judge: list[int] = []
    for label in range(len(data.classes)):
        rows = sorted(np.flatnonzero(data.labels == label), key=lambda row: data.names[row])
        wanted = min(round(share * len(rows)), len(rows) - 1) if share else 0
        if share and len(rows) > 1:
            wanted = max(1, wanted)
        drawn = np.random.default_rng([seed, _SPLIT, label]).permutation(len(rows))[: max(wanted, 0)]
        judge += [int(rows[i]) for i in drawn]
    held = np.array(sorted(judge), dtype=np.int64)
    train = np.setdiff1d(np.arange(len(data)), held)
    if not len(train):
        raise FewerError(f"nothing of {data.root} would be left to train; give a smaller --validate-share")
    return train, held
