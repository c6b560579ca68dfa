"""Silhouettes of a training: read when they are needed, with a stated number of bytes of them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.progress import SILENT, Progress
from fewer.tasks.gait.data.dataset import GaitData, cut_sides, write_sequence
from fewer.tasks.gait.data.layout import ARRAYS
from fewer.tasks.gait.data.silhouettes import INVERTED, is_inverted
from fewer.tasks.gait.protocols.records import Walk

__all__ = ["Sequences", "prepared_once"]


class Sequences(Sequence[np.ndarray]):
    """Silhouettes uint8 (frames, 64, 44) of some walks.

    The first ones that fit into the limit stay in memory; the others are read again each time they are asked for. A
    training asks at random, and what was asked for last is no likelier to be asked for next, so nothing is put in the
    place of another.

    Parameters
    ----------
    data
        Where the walks are.
    walks
        Those that are asked for, by number.
    limit
        Bytes that stay in memory.

    Examples
    --------
    >>> from fewer.tasks.gait.data.dataset import GaitData
    >>> len(Sequences(GaitData(Path("walks"), {}), [], 0))
    0
    """

    def __init__(self, data: GaitData, walks: Sequence[Walk], limit: float) -> None:
        self._data, self._walks, self._limit = data, list(walks), limit
        self._kept: dict[int, np.ndarray] = {}
        self.used = 0
        """Bytes that are in memory now."""

    def __len__(self) -> int:
        return len(self._walks)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        if place in self._kept:
            return self._kept[place]
        try:
            frames = np.ascontiguousarray(cut_sides(self._data.frames(self._walks[place])))
        except FewerError as error:
            raise FewerError(f"{error}; see all that is wrong: fewer doctor {self._data.root}") from None
        if self.used + frames.nbytes <= self._limit:
            self._kept[place] = frames
            self.used += frames.nbytes
        return frames

    def check(self, progress: Progress = SILENT) -> None:
        """Read each sequence once, so that what is wrong is told before a training and not in the middle of it.

        Raises
        ------
        FewerError
            When one cannot be read, or most have a bright background.
        """
        wrong = []
        with progress.stage("read sequences", len(self)) as stage:
            for walk, frames in zip(self._walks, self, strict=True):
                if is_inverted(frames):
                    wrong.append(walk)
                stage.advance(1, str(walk))
        if 2 * len(wrong) > len(self):
            raise FewerError(f"{len(wrong)} of {len(self)} sequences, such as {wrong[0]}: {INVERTED}")


def prepared_once(data: GaitData, walks: Sequence[Walk], folder: Path, progress: Progress = SILENT) -> GaitData:
    """The data with arrays in the place of videos and folders of pictures, which take long to read.

    Arrays are written for sequences that can be read; of the others, their place stays, and whoever reads them is told.

    Parameters
    ----------
    data
        As they lie.
    walks
        Sequences that will be read many times.
    folder
        Where the arrays are written; it should be removed in the end.
    """
    slow = [walk for walk in walks if data.places[walk].suffix.lower() not in ARRAYS]
    if not slow:
        return data
    places = dict(data.places)
    with progress.stage("prepare sequences", len(slow)) as stage:
        for number, walk in enumerate(slow):
            try:
                frames = data.frames(walk)
            except FewerError:
                continue
            finally:
                stage.advance(1, str(walk))
            places[walk] = write_sequence(folder, Walk("prepared", "once", str(number)), frames)
    return replace(data, places=places)
