"""Boxes of nuScenes' tables in the frame of the scanner, against a scene that is laid out the other way round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.tasks.detect3d.boxes import limit_angle
from fewer.tasks.detect3d.dataset import open_data
from fewer.tasks.detect3d.nuscenes import write_boxes


def about_z(angle: float) -> list[float]:
    return [float(np.cos(angle / 2)), 0.0, 0.0, float(np.sin(angle / 2))]


def turned(angle: float, place) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(place, float)


CAR, SCANNER = (0.7, [100.0, -40.0, 1.0]), (-1.5708, [0.9, 0.0, 1.8])
"""Angle and place of the car in the world, and of the scanner on it."""


def in_the_world(place, angle: float) -> tuple[list[float], list[float]]:
    """From the scanner's frame to the world's, the way that a point goes."""
    on_car = turned(SCANNER[0], place) + SCANNER[1]
    return (turned(CAR[0], on_car) + CAR[1]).tolist(), about_z(angle + SCANNER[0] + CAR[0])


@pytest.fixture
def nuscenes(tmp_path) -> Path:
    root = tmp_path / "nu"
    (root / "samples/LIDAR_TOP").mkdir(parents=True)
    tables: dict[str, list] = {name: [] for name in ("sample", "sample_data", "sample_annotation", "ego_pose")}
    tables["scene"] = [{"token": "s0", "name": "scene-0061"}, {"token": "s1", "name": "scene-0103"}]
    tables["sensor"] = [{"token": "top", "channel": "LIDAR_TOP"}, {"token": "cam", "channel": "CAM_FRONT"}]
    tables["calibrated_sensor"] = [
        {"token": "cs", "sensor_token": "top", "translation": SCANNER[1], "rotation": about_z(SCANNER[0])},
        {"token": "cc", "sensor_token": "cam", "translation": [0, 0, 0], "rotation": about_z(0)},
    ]
    kinds = {"c": "vehicle.car", "p": "human.pedestrian.child", "d": "static_object.bicycle_rack"}
    tables["category"] = [{"token": token, "name": name} for token, name in kinds.items()]
    tables["instance"] = [{"token": f"i{token}", "category_token": token} for token in kinds]
    for i in range(3):
        name = f"n015__LIDAR_TOP__{i}"
        (root / f"samples/LIDAR_TOP/{name}.pcd.bin").write_bytes(np.ones((4, 5), "<f4").tobytes())
        tables["sample"].append({"token": f"t{i}", "timestamp": 5e5 * i, "scene_token": "s1" if i == 2 else "s0"})
        tables["ego_pose"].append({"token": f"e{i}", "translation": CAR[1], "rotation": about_z(CAR[0])})
        common = {"sample_token": f"t{i}", "ego_pose_token": f"e{i}", "is_key_frame": True}
        data = {"calibrated_sensor_token": "cs", "filename": f"samples/LIDAR_TOP/{name}.pcd.bin"}
        tables["sample_data"] += [
            {"token": f"d{i}", **common, **data},
            {"token": f"c{i}", **common, "calibrated_sensor_token": "cc", "filename": "samples/CAM_FRONT/a.jpg"},
            {"token": f"w{i}", **common, **data, "is_key_frame": False},
        ]
        for kind in kinds:
            place, rotation = in_the_world([10.0 + 2 * i, 3.0, -1.0], 0.4)
            known = {"prev": f"a{i - 1}{kind}" if i else "", "next": f"a{i + 1}{kind}" if i < 2 else ""}
            row = {"token": f"a{i}{kind}", "sample_token": f"t{i}", "instance_token": f"i{kind}", **known}
            row |= {"translation": place, "size": [1.9, 4.5, 1.6], "rotation": rotation}
            tables["sample_annotation"].append({**row, "num_lidar_pts": 0 if kind == "p" and i == 1 else 7})
    (root / "v1.0-mini").mkdir()
    for name, rows in tables.items():
        (root / f"v1.0-mini/{name}.json").write_text(json.dumps(rows))
    return root


def test_boxes_come_to_the_scanners_frame(nuscenes):
    done = write_boxes(nuscenes)
    assert (done.sweeps, done.boxes, done.train, done.val) == (3, 5, 2, 1) and "5 boxes of 3 sweeps" in done.lines()[0]
    data = open_data(nuscenes)
    assert data.split() == (("n015__LIDAR_TOP__0", "n015__LIDAR_TOP__1"), ("n015__LIDAR_TOP__2",))
    found = data.objects("n015__LIDAR_TOP__1")
    assert found.classes == ("car",)  # the pedestrian has no point here, and a rack is not detected
    assert np.allclose(found.boxes[0, :6], [12, 3, -1, 4.5, 1.9, 1.6], atol=1e-9)
    assert abs(float(limit_angle(found.boxes[:, 6] - 0.4)[0])) < 1e-9
    assert np.allclose(found.velocity, [[4, 0]], atol=1e-6)  # two metres in half a second
    with pytest.raises(FewerError, match="holds files already"):
        write_boxes(nuscenes)
    assert write_boxes(nuscenes, overwrite=True).boxes == 5


def test_what_tables_lack_is_told(nuscenes):
    with pytest.raises(FewerError, match="no folder v1"):
        write_boxes(nuscenes, "v1.0-trainval")
    with pytest.raises(FewerError, match="has no scene 'scene-9'"):
        write_boxes(nuscenes, val=["scene-9"])
    (nuscenes / "v1.0-mini/instance.json").write_text("[]")
    with pytest.raises(FewerError, match="lack 'ic'"):
        write_boxes(nuscenes)
    (nuscenes / "v1.0-mini/instance.json").write_text("[1]")
    with pytest.raises(FewerError, match="are not those of nuScenes"):
        write_boxes(nuscenes)
    (nuscenes / "v1.0-mini/instance.json").unlink()
    with pytest.raises(FewerError, match="instance"):
        write_boxes(nuscenes)
