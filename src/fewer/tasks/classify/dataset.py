"""A labelled set of images: names, labels, parts, and the classes in the order of the labels."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.subjects import SUBJECT_RULES, Subjects, draw_groups, subjects_of
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

    def subjects(self, rule: str = "auto") -> Subjects:
        """The subject of each row, by the names of files without their folders and endings.

        Bare numbers are not believed here, since files are often called after their class. Nor are subjects where a
        class would have one alone. A name that says nothing of a subject may stand in the folders of several classes.
        """
        short = {name: Path(name).stem for name in self.names}
        found = subjects_of(list(dict.fromkeys(short.values())), rule, bare=False)
        several = {subject for subject, count in Counter(found.of.values()).items() if count > 1}
        told = several if rule in SUBJECT_RULES else {s for stem, s in found.of.items() if re.search(rule, stem)}
        own = {name: found.of[short[name]] if found.of[short[name]] in told else name for name in self.names}
        kinds = [{own[self.names[row]] for row in np.flatnonzero(self.labels == i)} for i in range(len(self.classes))]
        if rule == "auto" and any(len(kind) == 1 for kind in kinds):
            return subjects_of(self.names, "none")
        return Subjects(own, next((name for name in self.names if short[name] == found.example), ""))


def holdout(data: ClassifyData, share: float, seed: int, subject: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Rows that train and rows that judge: the set's own parts, else a share of each class.

    The draw depends on the names and the seed alone, so that it is the same on every machine. All images of a subject
    are on one side.

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
    judge: set[str] = set()
    own = data.subjects(subject).of
    sizes = [Counter[str]() for _ in data.classes]
    for row in sorted(range(len(data)), key=lambda row: data.names[row]):
        sizes[data.labels[row]][own[data.names[row]]] += 1
    left = [len(of_class) for of_class in sizes]  # subjects of each class that train; one at least stays
    classes: dict[str, list[int]] = {}
    for label, of_class in enumerate(sizes):
        for name in of_class:
            classes.setdefault(name, []).append(label)

    def claim(name: str) -> bool:
        free = all(left[label] > 1 for label in classes[name])
        for label in classes[name] if free else ():
            left[label] -= 1
        return free

    for label, of_class in enumerate(sizes):
        count, groups = of_class.total(), list(of_class)
        wanted = max(1, min(round(share * count), count - 1)) if share and count > 1 else 0
        order = np.random.default_rng([seed, _SPLIT, label]).permutation(len(groups))
        wanted -= sum(of_class[name] for name in judge & of_class.keys())
        free = [groups[i] for i in order if groups[i] not in judge]
        drawn = draw_groups([of_class[name] for name in free], range(len(free)), wanted, lambda i: claim(free[i]))  # noqa: B023
        judge |= {free[i] for i in drawn}
    held = np.array([row for row, name in enumerate(data.names) if own[name] in judge], dtype=np.int64)
    train = np.setdiff1d(np.arange(len(data)), held)
    if not len(train):
        raise FewerError(f"nothing of {data.root} would be left to train; give a smaller --validate-share")
    return train, held
