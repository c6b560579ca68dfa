"""Boxes of nuScenes, out of its tables and into one file for each sweep.

nuScenes keeps its annotations in tables, in the frame of the world. Here they are brought to the scanner's frame, with
the names of its detection task, and written as ``boxes/NAME.json`` beside the sweeps, where every verb reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.core.progress import Progress, Silent
from fewer.core.reading import data_limit, parse_json, read_text
from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.layouts import sweep_boxes_text
from fewer.tasks.folders import make_folder

__all__ = ["DETECTED", "WrittenBoxes", "write_boxes"]

DETECTED: dict[str, str] = {
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
    **{
        f"human.pedestrian.{kind}": "pedestrian" for kind in ("adult", "child", "construction_worker", "police_officer")
    },
}
"""Categories of nuScenes, and what its detection task calls them; all others are left out."""

_MINI_VAL: tuple[str, ...] = ("scene-0103", "scene-0916")
_SENSOR = "LIDAR_TOP"
_LONGEST = 1.5
"""Seconds between two places of an object from which a velocity is told."""


@dataclass(frozen=True, repr=False)
class WrittenBoxes(Told):
    """What :func:`write_boxes` wrote.

    Attributes
    ----------
    folder
        Of the boxes.
    sweeps, boxes
        How many.
    train, val
        Sweeps of scenes that train and that judge.
    """

    folder: Path
    sweeps: int
    boxes: int
    train: int
    val: int

    def lines(self) -> list[str]:
        """How much is where."""
        split = f"{self.train} sweeps train and {self.val} judge, of other scenes (ImageSets)"
        return [f"{self.boxes} boxes of {self.sweeps} sweeps, in {self.folder}; {split}"]


def write_boxes(
    root: str | Path,
    version: str = "v1.0-mini",
    *,
    val: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WrittenBoxes:
    """Write the boxes of every key frame, and which scenes train and judge.

    Objects without a LiDAR point are left out. Frames of one scene are much alike, so that scenes are split and not
    frames.

    Parameters
    ----------
    root
        The folder of nuScenes, with ``samples/LIDAR_TOP`` and the tables in ``version``.
    version
        Folder of the tables.
    val
        Names of the scenes that judge; by default nuScenes' own of ``v1.0-mini``, else every fifth scene.
    overwrite
        Replace boxes and lists that are there.

    Raises
    ------
    FewerError
        When a table is missing or is not nuScenes', or there are boxes already.

    Examples
    --------
    >>> write_boxes("nuscenes/")  # doctest: +SKIP
    18538 boxes of 404 sweeps, in nuscenes/boxes; ...
    """
    root = Path(root)
    place = root / version
    if not place.is_dir():
        raise FewerError(f"{root} has no folder {version} with the tables of nuScenes; give its name as version")
    for folder in (root / "boxes", root / "ImageSets"):
        if not overwrite and folder.is_dir() and any(folder.iterdir()):
            raise FewerError(f"{folder} holds files already; give overwrite=True to replace them")
    try:
        tables = _Tables.read(place)
        sweeps = list(tables.sweeps())
        names = sorted({scene for scene, *_ in sweeps})
        judges = set(val) if val is not None else set(_MINI_VAL) if version == "v1.0-mini" else set(names[4::5])
        if val is not None and (strange := judges - set(names)):
            raise FewerError(f"{place} has no scene {min(strange)!r}")
        return _write(root, tables, sweeps, judges, progress or Silent())
    except KeyError as error:
        raise FewerError(f"the tables in {place} lack {error.args[0]!r}, or what it refers to") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise FewerError(f"the tables in {place} are not those of nuScenes: {error}") from None


def _write(
    root: Path, tables: _Tables, sweeps: list[tuple[str, str, Mapping[str, Any]]], judges: set[str], progress: Progress
) -> WrittenBoxes:
    folder, boxes = make_folder(root / "boxes"), 0
    lists: dict[str, list[str]] = {"train": [], "val": []}
    with progress.stage("boxes", len(sweeps)) as stage:
        for scene, name, row in sweeps:
            if (root / row["filename"]).is_file():  # a part of nuScenes may be there alone
                found = tables.objects(row)
                atomic_write_text(folder / f"{name}.json", sweep_boxes_text(found))
                lists["val" if scene in judges else "train"].append(name)
                boxes += len(found)
            stage.advance(1, name)
    if not lists["train"] and not lists["val"]:
        raise FewerError(f"{root} holds none of the {len(sweeps)} sweeps that its tables name, in samples/{_SENSOR}")
    for part, listed in lists.items():
        atomic_write_text(make_folder(root / "ImageSets") / f"{part}.txt", "".join(f"{name}\n" for name in listed))
    train, val = len(lists["train"]), len(lists["val"])
    return WrittenBoxes(folder, train + val, boxes, train, val)


@dataclass(frozen=True)
class _Tables:
    """Rows of nuScenes' tables by their token."""

    rows: Mapping[str, Mapping[str, Mapping[str, Any]]]
    of_sample: Mapping[str, list[Mapping[str, Any]]]

    @classmethod
    def read(cls, place: Path) -> _Tables:
        wanted = "scene sample sample_data calibrated_sensor sensor ego_pose sample_annotation instance category"
        rows = {}
        for name in wanted.split():
            path = place / f"{name}.json"
            text = read_text(path, data_limit(), what="table of nuScenes")
            rows[name] = {row["token"]: row for row in parse_json(text, str(path))}
        of_sample: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows["sample_annotation"].values():
            of_sample.setdefault(row["sample_token"], []).append(row)
        return cls(rows, of_sample)

    def sweeps(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Scene, name and row of each key frame of the scanner."""
        for row in self.rows["sample_data"].values():
            sensor = self.rows["calibrated_sensor"][row["calibrated_sensor_token"]]["sensor_token"]
            if row["is_key_frame"] and self.rows["sensor"][sensor]["channel"] == _SENSOR:
                sample = self.rows["sample"][row["sample_token"]]
                scene = self.rows["scene"][sample["scene_token"]]["name"]
                yield scene, Path(row["filename"]).name.removesuffix(".pcd.bin"), row

    def objects(self, sweep: Mapping[str, Any]) -> Objects:
        """Objects of a sweep in the frame of its scanner."""
        car = self.rows["ego_pose"][sweep["ego_pose_token"]]
        scanner = self.rows["calibrated_sensor"][sweep["calibrated_sensor_token"]]
        turn = _matrix(scanner["rotation"]).T @ _matrix(car["rotation"]).T
        boxes, names, speeds = [], [], []
        for row in self.of_sample.get(sweep["sample_token"], ()):
            kind = self.rows["category"][self.rows["instance"][row["instance_token"]]["category_token"]]["name"]
            if kind not in DETECTED or row["num_lidar_pts"] < 1:
                continue
            on_car = _matrix(car["rotation"]).T @ (np.array(row["translation"]) - car["translation"])
            centre = _matrix(scanner["rotation"]).T @ (on_car - scanner["translation"])
            width, length, height = row["size"]
            ahead = turn @ _matrix(row["rotation"])[:, 0]
            boxes.append([*centre, length, width, height, np.arctan2(ahead[1], ahead[0])])
            names.append(DETECTED[kind])
            speeds.append((turn @ self._velocity(row))[:2])
        return Objects(
            np.array(boxes, dtype=float).reshape(-1, 7),
            tuple(names),
            None,
            np.array(speeds, dtype=float).reshape(-1, 2),
        )

    def _velocity(self, row: Mapping[str, Any]) -> Floats:
        """Metres per second in the frame of the world, from the places before and after; NaN where none is near."""
        known, moments = self.rows["sample_annotation"], self.rows["sample"]
        before, after = known.get(row["prev"], row), known.get(row["next"], row)
        times = [moments[one["sample_token"]]["timestamp"] / 1e6 for one in (before, after)]
        apart = times[1] - times[0]
        longest = _LONGEST * (2 if before is not row and after is not row else 1)
        if not 0 < apart <= longest:
            return np.full(3, np.nan)
        return (np.array(after["translation"]) - before["translation"]) / apart


def _matrix(quaternion: Sequence[float]) -> NDArray[np.float64]:
    """The turn that a quaternion w, x, y, z stands for."""
    w, x, y, z = np.array(quaternion, dtype=float) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
