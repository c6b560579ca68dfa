"""Simulated scans as a KITTI folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fewer.core.files import atomic_write_bytes, atomic_write_text, explain_os_error
from fewer.core.progress import Progress, Silent
from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.detect3d.frames import Frame, Objects
from fewer.tasks.detect3d.kitti import Calibration, image_boxes, label_text
from fewer.tasks.detect3d.simulator.scan import Scan, scan
from fewer.tasks.detect3d.simulator.sensor import SENSORS, Sensor
from fewer.tasks.detect3d.simulator.streets import make_scene

__all__ = ["Streets", "write_kitti"]

_STREAM = 22


@dataclass(frozen=True)
class Streets:
    """Simulated street scenes.

    Attributes
    ----------
    sensor
        See :data:`~fewer.tasks.detect3d.simulator.sensor.SENSORS`.
    seed
        Scene ``i`` depends on the seed and on ``i`` alone.
    density
        Factor on the number of road users.

    Examples
    --------
    >>> frame = Streets(SENSORS["hdl-64"].thinned(4)).frame(0)
    >>> frame.points.dtype, frame.objects.boxes.shape[1]
    (dtype('float32'), 7)
    """

    sensor: Sensor = field(default_factory=lambda: SENSORS["hdl-64"])
    seed: int = 0
    density: float = 1.0

    def scan(self, index: int) -> tuple[Scan, Floats, tuple[str, ...]]:
        """Returns, boxes and classes of one scene, also of road users that no beam reaches."""
        rng = np.random.default_rng([_STREAM, self.seed, index])
        scene = make_scene(rng, self.sensor.height, self.density)
        return scan(scene, self.sensor, rng), scene.boxes, scene.classes

    def frame(self, index: int) -> Frame:
        """One scene, with a label for everybody whom at least one beam reaches."""
        made, boxes, classes = self.scan(index)
        there = np.bincount(made.owner[made.owner >= 0], minlength=len(boxes)) > 0
        image, outside = image_boxes(boxes, Calibration.usual())
        objects = Objects(boxes, classes, None, None, image, outside, made.occlusion().astype(float))
        return Frame(f"{index:06d}", made.points, objects.take(there))

    def write(self, folder: str | Path, count: int, *, val: float = 0.25, progress: Progress | None = None) -> Path:
        """Write scenes ``0`` to ``count`` as a KITTI folder; the last ones are those that judge.

        Parameters
        ----------
        folder
            Made if it is not there; scans of the same numbers are replaced.
        count
            Scenes.
        val
            Share in ``ImageSets/val.txt``.
        """
        root = Path(folder)
        with (progress or Silent()).stage("simulate", count) as stage:
            for index in range(count):
                write_kitti(root, self.frame(index))
                stage.advance(1)
        held = round(val * count)
        names = [f"{i:06d}" for i in range(count)]
        lists = root / "ImageSets"
        _make(lists)
        for part, chosen in (("train", names[: count - held]), ("val", names[count - held :])):
            atomic_write_text(lists / f"{part}.txt", "".join(f"{name}\n" for name in chosen))
        atomic_write_text(root / "SIMULATED.txt", f"Simulated scans of fewer: seed {self.seed}, {count} scenes.\n")
        return root


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder, "make the folder") from None


def write_kitti(root: Path, frame: Frame, calibration: Calibration | None = None) -> None:
    """One scan with its label and calibration under ``training``."""
    calibration = calibration or Calibration.usual()
    place = root / "training"
    for name in ("velodyne", "label_2", "calib"):
        _make(place / name)
    atomic_write_bytes(place / "velodyne" / f"{frame.name}.bin", frame.points[:, :4].astype("<f4").tobytes())
    atomic_write_text(place / "label_2" / f"{frame.name}.txt", label_text(frame.objects, calibration))
    atomic_write_text(place / "calib" / f"{frame.name}.txt", calibration.text())
