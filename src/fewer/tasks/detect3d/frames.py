"""One scan with its objects, as every reader gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import data_limit, read_bytes
from fewer.tasks.detect3d.boxes import Floats

__all__ = ["Frame", "Objects", "read_floats", "read_scan"]


@dataclass(frozen=True, eq=False)
class Objects:
    """Annotated or detected objects of one scan.

    Attributes
    ----------
    boxes
        Shape (n, 7): ``x y z length width height yaw`` in metres and radians, frame of the sensor.
    classes
        Name of each.
    scores
        Confidence of each, of detections; else None.
    velocity
        Metres per second along x and y, shape (n, 2), NaN where unknown; or None.
    image
        Of KITTI: the 2-D box in the image in pixels, ``left top right bottom``, shape (n, 4); or None.
    truncation, occlusion
        Of KITTI: share outside the image, and 0 (visible) to 3 (unknown); or None.

    Examples
    --------
    >>> Objects(np.zeros((1, 7)), ("Car",)).of(["Pedestrian"]).boxes.shape
    (0, 7)
    """

    boxes: Floats = field(default_factory=lambda: np.zeros((0, 7)))
    classes: tuple[str, ...] = ()
    scores: Floats | None = None
    velocity: Floats | None = None
    image: Floats | None = None
    truncation: Floats | None = None
    occlusion: Floats | None = None

    def __len__(self) -> int:
        return len(self.classes)

    def take(self, index: Any) -> Objects:
        """Some of them, by index or mask."""
        at = np.arange(len(self))[np.asarray(index, dtype=bool if np.asarray(index).dtype == bool else int)]

        def cut(values: Floats | None) -> Floats | None:
            return None if values is None else values[at]

        return Objects(
            self.boxes[at],
            tuple(self.classes[i] for i in at),
            cut(self.scores),
            cut(self.velocity),
            cut(self.image),
            cut(self.truncation),
            cut(self.occlusion),
        )

    def of(self, names: list[str] | tuple[str, ...]) -> Objects:
        """Those of some classes."""
        return self.take(np.array([name in names for name in self.classes], dtype=bool))


@dataclass(frozen=True, eq=False)
class Frame:
    """A scan and what is in it.

    Attributes
    ----------
    name
        Of the file, without suffix.
    points
        float32, shape (points, 4 or more): x, y, z in metres, intensity 0 to 1, further columns of the sensor.
    objects
        Annotated ones; empty where nothing is annotated.
    labelled
        Whether there is an annotation at all.
    """

    name: str
    points: Floats
    objects: Objects = field(default_factory=Objects)
    labelled: bool = True


def read_floats(path: Path, columns: int) -> Floats:
    """Points from a file of little-endian float32 values, ``columns`` of them a point.

    Raises
    ------
    FewerError
        When the file cannot be read, is cut off, or holds no point.
    """
    return _rows(read_bytes(path, data_limit()), path, columns)


def read_scan(path: Path) -> Floats:
    """Points of a ``.bin`` file: four floats each, or five where the fifth is a ring, as other tools write them.

    Raises
    ------
    FewerError
        As :func:`read_floats`.
    """
    raw = read_bytes(path, data_limit())
    return _rows(raw, path, 5 if _has_rings(raw) else 4)


def _has_rings(raw: bytes) -> bool:
    """Whether every fifth value is a small whole number and the others are not, as no scan of four columns has it."""
    if not raw or len(raw) % 20:
        return False
    rows = np.frombuffer(raw, "<f4").reshape(-1, 5)
    whole = (rows >= 0) & (rows < 256) & (rows == np.floor(rows))
    return bool(whole[:, 4].all()) and not bool(whole[:, :3].all())


def _rows(raw: bytes, path: Path, columns: int) -> Floats:
    if len(raw) % (4 * columns):
        raise FewerError(
            f"{path} has {len(raw)} bytes, which is no whole number of points of {columns} floats: "
            "it was cut off or has another number of columns; copy it again"
        )
    if not raw:
        raise FewerError(f"{path} holds no point; remove the scan, or copy it again")
    return np.frombuffer(raw, "<f4").reshape(-1, columns).copy()
