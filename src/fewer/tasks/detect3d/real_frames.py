"""Frames of KITTI kept as npz files, one frame each, and written out as a KITTI folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, atomic_write_text
from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.folders import make_folder

__all__ = ["StoredFrame", "kitti_frames", "write_frames"]


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """One frame as it was published.

    Attributes
    ----------
    name
        Of the file.
    points
        float32, shape (points, 4).
    label, calibration
        Texts of KITTI's files; the label is None where there is none.
    """

    name: str
    points: Floats
    label: str | None
    calibration: str


def kitti_frames(folder: str | Path) -> list[StoredFrame]:
    """Frames of a folder of npz files with ``points``, ``label_txt``, ``calib_txt`` and ``labelled``.

    Raises
    ------
    FewerError
        When there is none, or one lacks an entry.
    """
    frames = []
    for path in sorted(Path(folder).glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as held:
                label = str(held["label_txt"]) if bool(held["labelled"]) else None
                frames.append(StoredFrame(path.stem, held["points"].astype(np.float32), label, str(held["calib_txt"])))
        except (KeyError, ValueError, OSError) as error:
            raise FewerError(f"{path} is no stored frame ({error})") from None
    if not frames:
        raise FewerError(f"{folder} holds no frame (*.npz)")
    return frames


def write_frames(frames: Sequence[StoredFrame], folder: str | Path) -> Path:
    """A KITTI folder of stored frames.

    Examples
    --------
    >>> import tempfile
    >>> frame = StoredFrame("a", np.ones((1, 4), np.float32), None, "P2: 1\\n")
    >>> sorted(p.name for p in (write_frames([frame], tempfile.mkdtemp()) / "training").iterdir())
    ['calib', 'label_2', 'velodyne']
    """
    root = Path(folder)
    places = {name: make_folder(root / "training" / name) for name in ("velodyne", "label_2", "calib")}
    for frame in frames:
        atomic_write_bytes(places["velodyne"] / f"{frame.name}.bin", frame.points.astype("<f4").tobytes())
        atomic_write_text(places["calib"] / f"{frame.name}.txt", frame.calibration)
        if frame.label is not None:
            atomic_write_text(places["label_2"] / f"{frame.name}.txt", frame.label)
    return root
