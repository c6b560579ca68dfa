"""Sequences of a folder for the engine: of different lengths, unlabelled, of other persons for judgement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewer.core.errors import FewerError
from fewer.data.samples import ListSamples
from fewer.models.spec import LoadedModel
from fewer.tasks.gait.data.dataset import as_input
from fewer.tasks.gait.data.loose import open_sequences
from fewer.tasks.gait.loaded import network_of, unseen
from fewer.tasks.gait.protocols.records import Walk

__all__ = ["WalkSamples", "in_groups", "walks_for"]

_STREAM = 25
_FRAMES = 60
"""Frames that the engine looks at, of each sequence."""
_LENGTHS = (_FRAMES, 48, 36, 24, 16)
"""To which sequences of many lengths are cut, so that most of them go through the network together."""
_TOGETHER = 4


class WalkSamples(ListSamples):
    """Sequences; those of one length go through the network together."""

    def __init__(self, items: Any, files: tuple[Path, ...] = (), skipped: list[tuple[Path, str]] | None = None) -> None:
        super().__init__(items)
        self.files, self.skipped = files, list(skipped or [])

    def take(self, positions: Any) -> WalkSamples:
        """The sequences at some positions."""
        files = tuple(self.files[i] for i in positions) if self.files else ()
        return WalkSamples([self.items[i] for i in positions], files)

    def map(self, change: Any) -> WalkSamples:
        """Every sequence changed."""
        return WalkSamples([change(item) for item in self.items], self.files, self.skipped)


def walks_for(loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> WalkSamples:
    """Sequences without labels.

    Of the folder that the network was trained on, persons that judge are held out; of any other, a quarter of the
    persons by name. Of one person a quarter of the sequences is held out, and of one sequence the second half.

    Raises
    ------
    FewerError
        When the folder holds no sequence that can be used for this part.
    """
    network_of(loaded)
    data = open_sequences(folder)
    held = {walk.person for walk in unseen(loaded, data)}
    people = data.people
    if not 0 < len(held) < len(people):
        held = set(people[-max(1, len(people) // 4) :]) if len(people) > 1 else set()
    chosen = [walk for walk in data.walks if (walk.person in held) == (part == "heldout")]
    if not held:  # one person alone: every fourth sequence is kept apart, or the last one
        apart = set(data.walks[3::4] or data.walks[-1:])
        chosen = [walk for walk in data.walks if (walk in apart) == (part == "heldout")] or data.walks
    items, files, skipped = [], [], []
    for index in np.random.default_rng([seed, _STREAM]).permutation(len(chosen)):
        walk: Walk = chosen[int(index)]
        try:
            frames = data.frames(walk)
            if len(data) == 1 and len(frames) > 1:  # nothing judges what it has steered: each part gets half of it
                half = len(frames) // 2
                frames = frames[half:] if part == "heldout" else frames[:half]
            items.append(torch.from_numpy(as_input(frames[:_FRAMES])))
            files.append(data.places[walk])
        except FewerError as error:
            skipped.append((data.places[walk], str(error)))
        if len(items) == count:
            break
    if not items:
        reason = f"; the first: {skipped[0][1]}" if skipped else ""
        raise FewerError(f"{folder} holds no readable sequence for the {part} part{reason}")
    items = _of_usual_lengths(items)
    order = in_groups([len(item) for item in items], np.random.default_rng([seed, _STREAM, 1]))
    return WalkSamples([items[i] for i in order], tuple(files[i] for i in order), skipped)


def _of_usual_lengths(items: list[torch.Tensor]) -> list[torch.Tensor]:
    """Sequences without their last frames, where lengths differ: embeddings are judged against those of their batch."""
    if len({len(item) for item in items}) == 1:
        return items
    return [item[: next((n for n in _LENGTHS if n <= len(item)), len(item))] for item in items]


def in_groups(lengths: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Positions in an order in which four of one length stand beside each other, and any part has lengths of all kinds.

    Examples
    --------
    >>> found = in_groups([9, 5, 9, 5, 9, 5, 9, 5], np.random.default_rng(0))
    >>> sorted(found[:4]) in ([0, 2, 4, 6], [1, 3, 5, 7]) and sorted(found) == list(range(8))
    True
    """
    of: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        of.setdefault(length, []).append(position)
    groups = [some[i : i + _TOGETHER] for some in of.values() for i in range(0, len(some), _TOGETHER)]
    return [position for group in rng.permutation(len(groups)) for position in groups[group]]
