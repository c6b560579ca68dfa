"""One scan with its objects, as every reader gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import data_limit, read_bytes
from fewer.tasks.detect3d.boxes import Floats

__all__ = ["Frame", "Objects", "has_bytes", "have_place", "in_bytes", "intensities", "read_scan"]

BYTE = 255.0
"""The brightest return of sensors that give intensities as bytes."""
_ROWS = 64
"""Points below which nothing can be told about how many values each has."""
_NOTHING = float(np.log2(0.01)) + 1e-6
"""Size of a value that is zero."""
_PERIOD = 840
"""Values that are whole rows of 3, 4, 5, 6, 7 and 8."""


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


def have_place(points: Floats) -> np.ndarray:
    """Which points have a place, shape (points,): beams that met nothing are written as NaN, infinity or zeros.

    Examples
    --------
    >>> have_place(np.array([[3.0, 1, 0, 0.2], [0, 0, 0, 0], [np.nan, 1, 0, 0.2]])).tolist()
    [True, False, False]
    """
    return np.logical_and(np.isfinite(points[:, :3]).all(1), points[:, :3].any(1))


def intensities(scan: Floats) -> tuple[float, float] | None:
    """The lowest and the highest intensity of a scan; None where none is a number."""
    there = scan[:, 3][np.isfinite(scan[:, 3])]
    return (float(there.min()), float(there.max())) if len(there) else None


def has_bytes(scan: Floats) -> bool | None:
    """Whether the intensities of one scan are bytes: none below 0 or above 255, and a tenth of them well above 1.

    So a few bright points among intensities from 0 to 1 tell nothing. Dark scans tell by whole numbers. None where no
    intensity is a number.

    Examples
    --------
    >>> scans = np.zeros((3, 20, 4))
    >>> scans[:, :3, 3] = (9, 40.5, 240), (0.5, 0.7, 7), (0, 1, 2)
    >>> [has_bytes(scan) for scan in scans]
    [True, False, True]
    """
    there = scan[:, 3][np.isfinite(scan[:, 3])]
    if not len(there):
        return None
    if there.min() < 0 or there.max() > BYTE:
        return False
    bright = np.count_nonzero(there > 2) > len(there) / 10
    return bool(bright or (there.max() > 1 and (there == np.round(there)).all()))


def in_bytes(scans: Sequence[bool]) -> bool:
    """Whether the intensities of a set are bytes, which are brought to 0 to 1 as those of nuScenes are.

    Half of the scans have to say so (:func:`has_bytes`): a few odd ones must not change how all are read.

    Examples
    --------
    >>> in_bytes([True, True, False]), in_bytes([True, False, False]), in_bytes([])
    (True, False, False)
    """
    return 2 * sum(scans) >= max(1, len(scans))


def read_scan(path: Path, usual: int = 4) -> Floats:
    """Points of a file of little-endian float32 values.

    Scanners of other laboratories write more values a point than the four of KITTI (x, y, z, intensity) or the five of
    nuScenes. Read as rows of another length they would be noise, so that the values themselves tell how many there are.

    Parameters
    ----------
    path
        The file.
    usual
        Values of a point where nothing speaks against it.

    Raises
    ------
    FewerError
        When the file cannot be read, is cut off, holds no point, or points of three values or in double precision.
    """
    raw = read_bytes(path, data_limit())
    if _in_doubles(raw):
        raise FewerError(f"{path} holds float64 values; points are float32: points.astype('float32').tofile(FILE)")
    columns = 5 if usual == 4 and _has_rings(raw) else _columns(raw, usual)
    if columns == 3:
        raise FewerError(
            f"{path} holds three values a point; x, y, z and an intensity are needed, 0 where none is known"
        )
    if len(raw) % (4 * columns):
        raise FewerError(
            f"{path} has {len(raw)} bytes, which is no whole number of points of {columns} floats: "
            "it was cut off or has another number of columns; copy it again"
        )
    if not raw:
        raise FewerError(f"{path} holds no point; remove the scan, or copy it again")
    return np.frombuffer(raw, "<f4").reshape(-1, columns).copy()


def _has_rings(raw: bytes) -> bool:
    """Whether every fifth value is a small whole number and the others are not, as no scan of four columns has it."""
    if not raw or len(raw) % 20:
        return False
    rows = np.frombuffer(raw, "<f4").reshape(-1, 5)
    whole = (rows >= 0) & (rows < 256) & (rows == np.floor(rows))
    return bool(whole[:, 4].all()) and not bool(whole[:, :3].all())


def _columns(raw: bytes, usual: int) -> int:
    """How many values a point has.

    Distances, heights and intensities are of different sizes: read in rows of the right length, the columns differ more
    than in rows of any other, where each column holds a bit of everything.
    """
    count = len(raw) // 4
    if len(raw) % 4 or count < 8 * _ROWS:
        return usual
    start = count // 2 // _PERIOD * _PERIOD
    values = np.frombuffer(raw, "<f4", min(33 * _PERIOD, count - start), 4 * start)
    sizes = np.log2(np.abs(np.where(np.isfinite(values), values, 0)) + 0.01).astype(np.float64)
    # a file that was cut off is no whole number of rows: that rows of another length divide it says nothing
    told = {k: _apart(sizes, k, usual) for k in range(3, 9) if count % k == 0 or k % usual or k == usual}
    # neighbouring beams differ a little, too, so that two points might be taken for one long one
    better = {k: v for k, v in told.items() if v > told[usual] + (0.25 if k % usual == 0 else 0.1)}
    return min((k for k, v in better.items() if v > max(better.values()) - 0.02), default=usual)


def _apart(sizes: Floats, columns: int, usual: int) -> float:
    """Share of the variance of values that lies between the columns.

    Scanners of two returns write rows of zeros where there is no second one. Two such rows look like a long one whose
    second half is different, so that rows of zeros say nothing.
    """
    rows = sizes[: len(sizes) // columns * columns].reshape(-1, columns)
    if columns % usual:
        return float(rows.mean(0).var() / max(float(rows.var()), 1e-9))
    parts = rows.reshape(len(rows), -1, usual)
    there: np.ndarray = np.any(parts > _NOTHING, axis=2)
    if there.sum(0).min() == 0:  # a part that is always zero: rows of the usual length
        return 0.0 if columns > usual else float(rows.mean(0).var() / max(float(rows.var()), 1e-9))
    means = (parts * there[..., None]).sum(0) / there.sum(0)[:, None]
    return float(means.var() / max(float(parts[there].var()), 1e-9))


def _in_doubles(raw: bytes) -> bool:
    """Whether values make sense in double precision alone, as numpy writes them by default."""
    if len(raw) < 64 * _ROWS or len(raw) % 8:
        return False
    single = np.abs(np.frombuffer(raw, "<f4", 16 * _ROWS))
    double = np.abs(np.frombuffer(raw, "<f8", 8 * _ROWS))
    absurd = ~(single < 1e6) | ((single > 0) & (single < 1e-12))
    sound = (double < 1e5) & ((double == 0) | (double > 1e-9))
    return bool(absurd.mean() > 0.05 and sound.mean() > 0.99)
