"""Frames of a training: held in memory as far as a limit allows, and read again beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewer.tasks.detect3d.dataset import DetectionData
from fewer.tasks.detect3d.frames import Frame

__all__ = ["KeptFrames"]

MOST = 2**31
"""Bytes of points that are held: about a thousand whole scans of KITTI."""


class KeptFrames(Sequence[Frame]):
    """Scans with their objects, in the order of their names.

    A folder may hold more scans than fit into memory. Those that are read first stay; the others are read whenever
    they are asked for.

    Parameters
    ----------
    data
        Scans.
    names
        Of those that train.
    most
        Bytes of points that may stay.
    """

    def __init__(self, data: DetectionData, names: Sequence[str], most: int = MOST) -> None:
        self.data, self.names, self.most = data, tuple(names), most
        self.bytes = 0
        self._held: dict[int, Frame] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[int(index)]
        if at in self._held:
            return self._held[at]
        frame = self.data.frame(self.names[at])
        if self.bytes + frame.points.nbytes <= self.most:
            self._held[at] = frame
            self.bytes += frame.points.nbytes
        return frame
