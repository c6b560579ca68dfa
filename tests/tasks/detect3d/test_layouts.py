"""Folders as other data sets have them: nuScenes' own, sweeps alone, thousands of scans."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.tasks import open_task, task_for
from fewer.tasks.detect3d.dataset import open_data
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.layouts import sweep_boxes_text

SCAN = np.arange(15, dtype="<f4").reshape(3, 5)


@pytest.mark.parametrize("below", ["samples/LIDAR_TOP", "sweeps/LIDAR_TOP", "samples", "sweeps", ""])
def test_sweeps_wherever_nuscenes_has_them(tmp_path, below):
    root = tmp_path / "nu scenes"
    (root / below).mkdir(parents=True)
    (root / "boxes").mkdir()
    (root / below / "n015__LIDAR_TOP__1.pcd.bin").write_bytes(SCAN.tobytes())
    (root / below / "._n015__LIDAR_TOP__1.pcd.bin").write_bytes(b"\0\5\26\7")
    boxes = Objects(np.array([[1.0, 2, 3, 4, 2, 1, 0.5]]), ("car",))
    (root / "boxes/n015__LIDAR_TOP__1.json").write_text(sweep_boxes_text(boxes))
    data = open_data(root)
    assert (data.layout, data.names) == ("sweeps", ("n015__LIDAR_TOP__1",))
    assert data.points(data.names[0])[2, 3] == pytest.approx(13 / 255)
    assert np.allclose(data.objects(data.names[0]).boxes, boxes.boxes)
    assert open_task("detect3d").recognises(root) and task_for(None, data=root).name == "detect3d"


def test_key_frames_come_before_sweeps(tmp_path):
    for name in ("samples", "sweeps"):
        (tmp_path / name / "LIDAR_TOP").mkdir(parents=True)
        (tmp_path / name / "LIDAR_TOP" / f"{name}.pcd.bin").write_bytes(SCAN.tobytes())
    assert open_data(tmp_path).names == ("samples",)
    assert open_data(tmp_path / "sweeps").names == ("sweeps",)


def test_ten_thousand_scans_are_listed_at_once(tmp_path):
    (tmp_path / "points").mkdir()
    (tmp_path / "ImageSets").mkdir()
    names = [f"{i:05d}" for i in range(10_000)]
    for name in names:
        (tmp_path / "points" / f"{name}.npy").touch()
    (tmp_path / "ImageSets/train.txt").write_text("\n".join(names))
    data = open_data(tmp_path)
    began = time.process_time()
    assert data.listed("train") == tuple(names)
    assert [data.file(name).stem for name in names] == names
    assert time.process_time() - began < 1.0


def test_lists_of_scans_without_a_label_or_without_judges(tmp_path):
    for name in ("points", "labels", "ImageSets"):
        (tmp_path / name).mkdir()
    for name in "abcdef":
        np.save(tmp_path / "points" / f"{name}.npy", SCAN)
        if name not in "af":
            (tmp_path / "labels" / f"{name}.txt").write_text("")
    (tmp_path / "ImageSets/train.txt").write_text("a\nb\nc\n\n d \n")
    train, val = open_data(tmp_path).split()
    assert set(train) | set(val) == {"b", "c", "d"} and len(val) == 1  # e is on no list, a has no label
    (tmp_path / "ImageSets/val.txt").write_text("e\nf\n")
    assert open_data(tmp_path).split() == (("b", "c", "d"), ("e",))


def test_one_file_is_a_data_set_of_one_scan(tmp_path):
    for name in ("points", "labels"):
        (tmp_path / name).mkdir()
    for name in "ab":
        np.save(tmp_path / "points" / f"{name}.npy", SCAN)
    (tmp_path / "labels/b.txt").write_text("1 2 3 4 2 1 0.5 Car\n")
    one = open_data(tmp_path / "points/b.npy")
    assert (one.layout, one.names, one.labelled()) == ("custom", ("b",), ("b",))
    alone = tmp_path / "n015__LIDAR_TOP__1.pcd.bin"
    alone.write_bytes(SCAN.tobytes())
    assert open_data(alone).names == ("n015__LIDAR_TOP__1",) and open_data(alone).points(
        "n015__LIDAR_TOP__1"
    ).shape == (3, 5)
    (tmp_path / "points/c.txt").write_text("no scan")
    with pytest.raises(FewerError, match=r"is no scan; give a \.bin"):
        open_data(tmp_path / "points/c.txt")
