"""Batches of a training: P persons, K sequences of each, and frames in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.tasks.gait.protocols.records import Walk

__all__ = ["PersonSampler", "choose_frames"]

Order = Literal["ordered", "unordered"]


def choose_frames(
    rng: np.random.Generator, length: int, count: int, *, order: Order = "ordered", skip: int = 10
) -> np.ndarray:
    """Frames of a sequence for a training.

    Ordered: ``count`` of the frames of a window that is ``skip`` longer, in their order; a sequence that is shorter
    than that is repeated end to end. Unordered: any frames, in any order, which is all that GaitSet and GaitBase need;
    a period cannot be seen in them.

    Examples
    --------
    >>> found = choose_frames(np.random.default_rng(0), 50, 8, skip=2)
    >>> bool((np.diff(found) > 0).all()), len(found)
    (True, 8)
    """
    if order == "unordered":
        return rng.choice(length, count, replace=length < count)
    window = count + skip
    if length < window:
        start, places = int(rng.integers(length)), np.tile(np.arange(length), -(-2 * window // length))
        if length >= count:
            start = 0
            places, window = np.arange(length), length
    else:
        start, places = int(rng.integers(length - window + 1)), np.arange(length)
    chosen = np.sort(rng.choice(window, count, replace=False))
    return places[start : start + window][chosen]


class PersonSampler:
    """Batches that follow from the seed and the step alone.

    Parameters
    ----------
    walks, sequences
        Names, and silhouettes (frames, 64, 44) of each.
    people, each
        Persons in a batch, and sequences of each.
    frames
        Of a sequence.
    order, skip
        See :func:`choose_frames`.
    flip
        Chance that a whole sequence is mirrored.
    seed
        Of everything.

    Raises
    ------
    FewerError
        When there is only one person.
    """

    def __init__(
        self,
        walks: Sequence[Walk],
        sequences: Sequence[np.ndarray],
        *,
        people: int,
        each: int,
        frames: int,
        order: Order = "ordered",
        skip: int = 10,
        flip: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.names = sorted({walk.person for walk in walks})
        if len(self.names) < 2:
            raise FewerError("a training needs two persons at least: there is nobody to tell a single one apart from")
        self.rows = {name: np.array([i for i, w in enumerate(walks) if w.person == name]) for name in self.names}
        self.sequences, self.people, self.each = sequences, min(people, len(self.names)), each
        self.frames, self.skip, self.flip, self.seed = frames, skip, flip, seed
        self.order: Order = order

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Silhouettes (P K, frames, 64, 44) as float32 and class numbers (P K,)."""
        rng = np.random.default_rng([24, self.seed, step])
        chosen = rng.choice(len(self.names), self.people, replace=False)
        found, labels = [], []
        for person in chosen:
            rows = self.rows[self.names[person]]
            for row in rng.choice(rows, self.each, replace=len(rows) < self.each):
                sequence = self.sequences[row]
                some = sequence[choose_frames(rng, len(sequence), self.frames, order=self.order, skip=self.skip)]
                found.append(some[:, :, ::-1] if rng.random() < self.flip else some)
                labels.append(int(person))
        values = np.stack(found)
        scale = 255.0 if values.dtype == np.uint8 else 1.0
        return torch.from_numpy(np.ascontiguousarray(values)).float() / scale, torch.tensor(labels)
