"""Folders as other data sets have them: nuScenes' own, sweeps alone, thousands of scans."""

from __future__ import annotations

import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.tasks import open_task, task_for
from fewer.tasks.detect3d.dataset import open_data
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.layouts import sweep_boxes_text
from fewer.tasks.detect3d.loaded import unseen

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


def written(path, points, dtype="<f4"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.asarray(points).astype(dtype).tobytes())
    return path


def scan_of(columns: int, count: int = 500, seed: int = 0) -> np.ndarray:
    """Points as scanners give them: places, an intensity, and small values that differ from column to column."""
    rng = np.random.default_rng(seed)
    places = [rng.normal(0, 20, count), rng.normal(0, 15, count), rng.normal(-1, 0.5, count), rng.random(count)]
    more = [rng.random(count) * 10.0 ** (-1 - i) for i in range(columns - 4)]
    return np.column_stack([*places, *more]).astype(np.float32)


@pytest.mark.parametrize("columns", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("count", [500, 501, 840])
def test_files_tell_how_many_values_a_point_has(tmp_path, columns, count):
    """Five or six floats a point were read as rows of four wherever the number of bytes allowed it."""
    points = scan_of(columns, count)
    for name in ("velodyne/a.bin", "samples/a.pcd.bin"):
        data = open_data(written(tmp_path / name, points))
        read = data.points("a")
        assert np.array_equal(read[:, :3], points[:, :3]) and read.shape == points.shape


def test_points_without_an_intensity_and_doubles_are_told(tmp_path):
    three = written(tmp_path / "a.bin", scan_of(4, 840)[:, :3])
    with pytest.raises(FewerError, match="three values a point; x, y, z and an intensity are needed"):
        open_data(three).points("a")
    for number, points in enumerate((scan_of(4), scan_of(4).astype(float) * np.pi)):
        path = written(tmp_path / f"b{number}.bin", points, "<f8")
        with pytest.raises(FewerError, match=r"float64 values; .*astype\('float32'\)"):
            open_data(path).points(f"b{number}")
    cut = written(tmp_path / "c.bin", scan_of(4, 500).ravel()[:1995])
    with pytest.raises(FewerError, match="it was cut off"):
        open_data(cut).points("c")


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_two_returns_with_rows_of_zeros_are_no_eight_values(tmp_path, share):
    points = scan_of(4, 1200)
    rng = np.random.default_rng(1)
    second = np.where(rng.random(1200) < share, 1.02, 0.0)[:, None] * points
    rows = np.stack([points, second], 1).reshape(-1, 4)
    data = open_data(written(tmp_path / "a.bin", rows).parent)
    assert data.raw("a").shape == (2400, 4)
    assert len(data.points("a")) == 1200 + int((second != 0).any(1).sum())
    # long points keep their length, and so do those of which some hold nothing but zeros beyond the fourth value
    long = scan_of(8, 1200)
    long[::3, 4:] = 0
    assert open_data(written(tmp_path / "a.bin", long).parent).raw("a").shape == (1200, 8)


def test_a_scan_of_zeros_has_no_point(tmp_path):
    data = open_data(written(tmp_path / "a.bin", np.zeros((600, 4))).parent)
    with pytest.raises(FewerError, match="no point with a place: every row is NaN, infinity or zero"):
        data.points("a")


@pytest.mark.parametrize("cut", [1, 2, 3, 6, 10])
@pytest.mark.parametrize("columns", [4, 5, 6])
def test_a_file_that_was_cut_off_is_no_file_of_other_columns(tmp_path, columns, cut):
    """Rows of another length divide what is left by chance, and would be noise."""
    points = scan_of(columns, 600)
    points[:, 3] = 0
    if (600 * columns - cut) % columns:
        path = written(tmp_path / "a.bin", points.ravel()[:-cut])
        with pytest.raises(FewerError, match=f"points of {columns} floats: it was cut off"):
            open_data(path).points("a")


def test_beams_that_met_nothing_are_left_out(tmp_path):
    points = scan_of(4, 100)
    points[::3, :3] = np.nan
    points[1, 0] = np.inf
    data = open_data(written(tmp_path / "velodyne/a.bin", points))
    assert len(data.points("a")) == 65 and len(data.raw("a")) == 100
    written(tmp_path / "velodyne/b.bin", np.full((9, 4), np.nan))
    with pytest.raises(FewerError, match="no point with a place"):
        open_data(tmp_path).points("b")


def test_binary_points_in_the_custom_layout(tmp_path):
    written(tmp_path / "points/a.bin", scan_of(4))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("1 2 3 4 2 1 0.5 Bus\n")
    data = open_data(tmp_path)
    assert (data.layout, data.names, data.objects("a").classes) == ("custom", ("a",), ("Bus",))
    assert open_task("detect3d").recognises(tmp_path)


def test_a_list_of_judges_alone_keeps_them_from_training(tmp_path):
    """They were mixed with all others, and a share of the mix judged."""
    for name in "abcde":
        written(tmp_path / f"points/{name}.bin", scan_of(4))
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / f"labels/{name}.txt").write_text("")
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets/val.txt").write_text("b.bin\nd\n")
    assert open_data(tmp_path).split() == (("a", "c", "e"), ("b", "d"))
    (tmp_path / "ImageSets/val.txt").write_text("b\nx\ny\n")
    with pytest.raises(FewerError, match=r"lists 'x', .*; 2 of its 3 scans are missing"):
        open_data(tmp_path).split()


def test_boxes_of_sweeps_without_a_velocity(tmp_path):
    written(tmp_path / "samples/a.pcd.bin", scan_of(5))
    (tmp_path / "boxes").mkdir()
    entry = '{"translation": [1, 2, 3], "size": [2, 4, 1], "rotation": [1, 0, 0, 0], "detection_name": "bus"'
    (tmp_path / "boxes/a.json").write_text(f'[{entry}, "velocity": null}}]')
    objects = open_data(tmp_path).objects("a")
    assert objects.classes == ("bus",) and np.isnan(objects.velocity).all()


def test_data_that_moved_are_still_those_that_trained(tmp_path):
    """Scans that had trained judged, as soon as the folder had another name."""
    for name in "abc":
        written(tmp_path / f"set/points/{name}.bin", scan_of(4))
        (tmp_path / "set/labels").mkdir(exist_ok=True)
        (tmp_path / f"set/labels/{name}.txt").write_text("")
    split = {"data": str(tmp_path / "set"), "train": ["a", "b"], "val": ["c"]}
    run = SimpleNamespace(name="run", meta={"detect3d": {"split": split}})
    assert unseen(run, open_data(tmp_path / "set")) == ("c",)
    shutil.copytree(tmp_path / "set", tmp_path / "like it")
    assert unseen(run, open_data(tmp_path / "like it")) == ("a", "b", "c")  # the other one is still there
    (tmp_path / "set").rename(tmp_path / "moved")
    assert unseen(run, open_data(tmp_path / "moved")) == ("c",)
    written(tmp_path / "moved/points/d.bin", scan_of(4))
    (tmp_path / "moved/labels/d.txt").write_text("")
    assert len(unseen(run, open_data(tmp_path / "moved"))) == 4
