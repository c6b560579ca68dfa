"""Readers, the simulator, ground-truth sampling and the doctor."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.tasks.detect3d.augment import ObjectBank, augmented, only
from fewer.tasks.detect3d.boxes import points_in_boxes
from fewer.tasks.detect3d.dataset import open_data
from fewer.tasks.detect3d.demo import trained_detector
from fewer.tasks.detect3d.doctor import checkup, repair
from fewer.tasks.detect3d.frames import Frame, Objects
from fewer.tasks.detect3d.kitti import Calibration, image_boxes, label_text, parse_calibration, parse_label
from fewer.tasks.detect3d.layouts import custom_label_text, sweep_boxes_text
from fewer.tasks.detect3d.predict import predict
from fewer.tasks.detect3d.simulator import SENSORS, Streets

SENSOR = SENSORS["hdl-64"].ahead(40).thinned(4)


@pytest.fixture(scope="module")
def kitti(tmp_path_factory) -> Path:
    return Streets(SENSOR, seed=3).write(tmp_path_factory.mktemp("data") / "kitti", 4)


def test_kitti_folder_reads_back(kitti):
    data = open_data(kitti)
    assert data.layout == "kitti" and len(data) == 4 and data.split() == (("000000", "000001", "000002"), ("000003",))
    frame, again = Streets(SENSOR, seed=3).frame(1), data.frame("000001")
    assert np.array_equal(frame.points, again.points)
    assert frame.objects.classes == again.objects.classes
    assert np.abs(frame.objects.boxes[:, :6] - again.objects.boxes[:, :6]).max() < 0.011
    assert np.abs(np.sin(frame.objects.boxes[:, 6] - again.objects.boxes[:, 6])).max() < 1e-3
    camera = open_data(kitti, "camera").points("000001")
    assert 0 < len(camera) < len(again.points)


def test_simulated_points_lie_where_they_should():
    made, boxes, _ = Streets(SENSORS["hdl-64"].ahead(30).thinned(2), seed=1).scan(0)
    inside = points_in_boxes(made.points, boxes, 0.1)
    for number in range(len(boxes)):
        own = made.owner == number
        assert own.sum() == 0 or inside[number, own].mean() > 0.98
    assert (made.seen <= made.wholly).all() and made.points[:, 3].min() >= 0 and made.points[:, 3].max() <= 1
    # whoever is hidden behind another one gets fewer beams than without it
    assert set(made.occlusion()) <= {0, 1, 2}


def test_custom_and_sweep_layouts(tmp_path, kitti):
    frame = open_data(kitti).frame("000000")
    custom = tmp_path / "custom"
    for name in ("points", "labels"):
        (custom / name).mkdir(parents=True)
    np.save(custom / "points" / "a.npy", frame.points)
    (custom / "labels" / "a.txt").write_text(custom_label_text(frame.objects))
    read = open_data(custom).frame("a")
    assert np.array_equal(read.points, frame.points) and np.allclose(read.objects.boxes, frame.objects.boxes, atol=1e-3)
    sweeps = tmp_path / "nu"
    for name in ("sweeps", "boxes"):
        (sweeps / name).mkdir(parents=True)
    five = np.column_stack([frame.points[:, :3], 255 * frame.points[:, 3], np.zeros(len(frame.points))])
    (sweeps / "sweeps" / "a.pcd.bin").write_bytes(five.astype("<f4").tobytes())
    moving = replace(frame.objects, velocity=np.ones((len(frame.objects), 2)))
    (sweeps / "boxes" / "a.json").write_text(sweep_boxes_text(moving))
    read = open_data(sweeps).frame("a")
    assert read.points.shape[1] == 5 and np.allclose(read.points[:, :4], frame.points, atol=1e-5)
    assert np.allclose(read.objects.boxes, frame.objects.boxes) and read.objects.velocity is not None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: (d / "velodyne/000000.bin").write_bytes(b"\0" * 15), "no whole number of points"),
        (lambda d: (d / "velodyne/000000.bin").write_bytes(b""), "holds no point"),
        (lambda d: (d / "label_2/000000.txt").write_text("Car 0 0 0 1 2 3 4 1 1 1 0 0 9\n"), "14 columns"),
        (
            lambda d: (d / "calib/000000.txt").write_text(Calibration.usual().text().replace("Tr_velo_to_cam", "Tr")),
            "no Tr_velo_to_cam",
        ),
        (lambda d: (d / "calib/000000.txt").unlink(), "does not exist"),
    ],
)
def test_bad_files_are_told_in_one_sentence(tmp_path, change, told):
    root = Streets(SENSOR, seed=4).write(tmp_path / "kitti", 2)
    change(root / "training")
    with pytest.raises(FewerError, match=told) as caught:
        open_data(root).frame("000000")
    assert "\n" not in str(caught.value)
    found = checkup(root)
    assert not found.healthy and found.findings[0].case == "000000"
    done = repair(found, tmp_path / "fixed")
    assert done.kept == 1 and checkup(tmp_path / "fixed").healthy


def test_doctor_drops_points_and_boxes(tmp_path):
    root = Streets(SENSOR, seed=4).write(tmp_path / "kitti", 2)
    data = open_data(root)
    points = data.points("000000")
    points[3, 0], points[9, 3] = np.nan, np.inf
    (root / "training/velodyne/000000.bin").write_bytes(points.tobytes())
    label = root / "training/label_2/000000.txt"
    far = Objects(np.array([[300.0, 0, 0, 4, 2, 1.5, 0], [20, 5, 0, 400, 2, 1.5, 0]]), ("Car", "Car"))
    label.write_text(label.read_text() + label_text(far, Calibration.usual()))
    found = checkup(root)
    assert {f.check for f in found.findings} >= {"nan", "empty-box", "size"}
    assert {f.level: f.text for f in found.findings if f.check == "nan"} == {
        "error": "1 points have a value beside their place that is NaN or infinity",
        "warning": "1 points have no place (NaN, infinity or zeros): their beams met nothing",
    }
    assert json.loads(found.to_json())["healthy"] is False and found.lines()
    done = repair(found, tmp_path / "fixed")
    assert len(done.changed) == 2
    again = checkup(tmp_path / "fixed")
    assert again.healthy and again.facts["points"][0] == len(points) - 2


def test_intensities_in_bytes_are_brought_to_one(tmp_path):
    (tmp_path / "a set/points").mkdir(parents=True)
    rng = np.random.default_rng(0)
    scans = [np.column_stack([rng.normal(size=(9, 3)), top * rng.random(9)]).astype(np.float32) for top in (255, 0.5)]
    for number, scan in enumerate(scans):
        np.save(tmp_path / "a set/points" / f"{number}.npy", scan)
    found = checkup(tmp_path / "a set")
    assert [f.case for f in found.findings if f.check == "intensity"] == ["0"]
    done = repair(found, tmp_path / "fixed")
    assert len(done.changed) == 2  # a dark scan of a set in bytes is in bytes as well
    for number, scan in enumerate(scans):
        for place in ("a set", "fixed"):  # every verb reads them so, repaired or not
            assert np.allclose(open_data(tmp_path / place).points(str(number))[:, 3], scan[:, 3] / 255)
    assert not [f for f in checkup(tmp_path / "fixed").findings if f.check == "intensity"]


def test_one_bright_scan_does_not_darken_a_set(tmp_path):
    (tmp_path / "set/points").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, top in enumerate((0.9, 0.8, 60.0)):
        scan = np.column_stack([rng.normal(size=(9, 3)), np.linspace(0, top, 9)]).astype(np.float32)
        np.save(tmp_path / "set/points" / f"{number}.npy", scan)
    found = checkup(tmp_path / "set")
    assert [f.case for f in found.findings if f.check == "intensity"] == ["2"]
    repair(found, tmp_path / "fixed")
    for place in ("set", "fixed"):
        assert open_data(tmp_path / place).points("0")[:, 3].max() == np.float32(0.9)


def test_boxes_in_another_frame_are_noticed(tmp_path, kitti):
    data = open_data(kitti)
    root = tmp_path / "custom"
    for name in ("points", "labels"):
        (root / name).mkdir(parents=True)
    for name in data.names:
        frame = data.frame(name)
        np.save(root / "points" / f"{name}.npy", frame.points)
        wrong = frame.objects.boxes[:, [1, 2, 0, 3, 4, 5, 6]]  # as a camera counts its axes
        (root / "labels" / f"{name}.txt").write_text(custom_label_text(Objects(wrong, frame.objects.classes)))
    assert "frame" in {f.check for f in checkup(root).findings}


def test_calibration_turns_back():
    text = Calibration.usual().text()
    calibration = parse_calibration(text)
    points = np.random.default_rng(0).uniform(1, 30, (9, 3))
    assert np.allclose(calibration.to_scanner(calibration.to_camera(points)), points)
    boxes = np.array([[15.0, 3, -1, 4, 1.7, 1.5, 0.7], [25, -6, -1, 0.8, 0.6, 1.7, -3]])
    objects = Objects(boxes, ("Car", "Pedestrian"), np.array([0.9, 0.5]))
    read = parse_label(label_text(objects, calibration), calibration)
    assert np.abs(read.boxes - boxes).max() < 0.011 and np.allclose(read.scores, objects.scores)
    assert np.allclose(image_boxes(boxes, calibration)[0], read.image, atol=0.01)


def test_calibrations_as_other_laboratories_write_them():
    usual = Calibration.usual()
    rows = usual.text().splitlines()
    whole = np.vstack([usual.to_reference, [0, 0, 0, 1]])
    lines = [row for row in rows if not row.startswith(("P1", "P2", "P3", "Tr_velo_to_cam"))]
    lines.append("Tr_velo_to_cam: " + " ".join(map(str, whole.ravel())))
    read = parse_calibration("\n".join(lines))
    assert np.allclose(read.to_reference, usual.to_reference) and np.allclose(read.projection, usual.projection)
    flat = [row for row in rows if not row.startswith("R0_rect")] + ["R0_rect: " + "0 " * 9]
    with pytest.raises(FewerError, match="R0_rect maps space onto a plane"):
        parse_calibration("\n".join(flat))
    with pytest.raises(FewerError, match="no P2; the boxes in the image cannot be found"):
        parse_calibration("\n".join(row for row in rows if not row.startswith("P")))


def test_a_camera_with_larger_images_sees_more():
    """Boxes were cut at the 375 rows of KITTI's images, and what lay below them was too small to count."""
    wide = np.array([[1000.0, 0, 960, 0], [0, 1000, 540, 0], [0, 0, 1, 0]])
    camera = replace(Calibration.usual(), projection=wide)
    assert camera.size == (1920, 1080) and replace(camera, projection=np.zeros((3, 4))).size == (1242, 375)
    box, outside = image_boxes(np.array([[10.0, 0, -1.2, 4, 1.8, 1.5, 0]]), camera)
    assert box[0, 3] - box[0, 1] > 150 and outside[0] == 0
    assert camera.in_view(np.array([[10.0, 0, -1.5]])).all()


def test_a_tram_is_no_impossible_size_and_columns_are_told(tmp_path):
    (tmp_path / "points").mkdir()
    (tmp_path / "labels").mkdir()
    rng = np.random.default_rng(0)
    for name, columns in (("a", 4), ("b", 5), ("c", 5)):
        np.save(tmp_path / "points" / f"{name}.npy", rng.random((40, columns)).astype(np.float32))
        (tmp_path / "labels" / f"{name}.txt").write_text("0.5 0.5 0.5 35.2 2.6 3.5 0 Tram\n")
    found = checkup(tmp_path)
    assert [(f.check, f.case) for f in found.findings] == [("columns", "a")] and found.healthy
    assert "40 to 40 points a scan, 5 or 4 values each" in found.lines()


def test_augmentation_keeps_points_in_boxes(kitti):
    frame = open_data(kitti).frame("000000")
    before = points_in_boxes(frame.points, frame.objects.boxes, 0.02).sum(1)
    for seed in range(4):
        changed = augmented(frame, np.random.default_rng(seed))
        after = points_in_boxes(changed.points, changed.objects.boxes, 0.02).sum(1)
        assert np.abs(after - before).max() <= 2
    plain, bright = (augmented(frame, np.random.default_rng(7), shine=shine) for shine in (0.0, 0.7))
    ratio = bright.points[:, 3] / plain.points[:, 3].clip(1e-6)
    own = (plain.points[:, 3] > 0.01) & (bright.points[:, 3] < 1)
    assert np.ptp(ratio[own]) < 1e-3 and abs(np.log(ratio[own][0])) <= 0.7 and ratio[own][0] != 1
    assert np.array_equal(bright.points[:, :3], plain.points[:, :3])
    bank = ObjectBank.of([frame], ("Car",))
    bare = Frame("b", frame.points[:5] + 200, Objects())
    filled = bank.set_in(bare, {"Car": 3}, np.random.default_rng(0))
    assert 0 < len(filled.objects) <= 3 and len(filled.points) > 5
    wide = Frame("c", np.column_stack([bare.points, np.full(5, 7, np.float32)]), Objects())
    ringed = bank.set_in(wide, {"Car": 3}, np.random.default_rng(0))  # objects of four values, a scan of five
    assert ringed.points.shape == (len(filled.points), 5) and not ringed.points[5:, 4].any()
    near = only(frame, ("Car",), (0, -20, -3, 30, 20, 1))
    assert (near.objects.boxes[:, 0] < 30).all()


@pytest.mark.parametrize("count", [100, 103])
def test_scans_with_a_ring_are_told_from_those_without(tmp_path, count):
    """Files of five columns under KITTI's names were read as rows of four, one value further in every row."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(count, 4)).astype("<f4")
    rings = np.column_stack([points, np.arange(count) % 32]).astype("<f4")
    (tmp_path / "velodyne").mkdir()
    (tmp_path / "velodyne/a.bin").write_bytes(points.tobytes())
    (tmp_path / "velodyne/b.bin").write_bytes(rings.tobytes())
    data = open_data(tmp_path)
    assert np.array_equal(data.points("a"), points) and np.array_equal(data.points("b"), rings)


def test_a_scan_without_its_calibration_is_left_out_of_a_prediction(tmp_path, kitti):
    root = tmp_path / "kitti"
    shutil.copytree(kitti, root)
    (root / "training/calib/000001.txt").unlink()
    done = predict(trained_detector(), root, out=tmp_path / "boxes")
    assert [path.stem for path in done.files] == ["000000", "000002", "000003"]
    assert [name for name, _ in done.skipped] == ["000001"] and "000001.txt" in done.skipped[0][1]


def test_a_few_odd_intensities_do_not_decide_how_a_set_is_read(tmp_path):
    rng = np.random.default_rng(0)

    def scan(values) -> np.ndarray:
        return np.column_stack([rng.normal(size=(200, 3)), values]).astype(np.float32)

    def read(name, scans) -> float:
        (tmp_path / name / "points").mkdir(parents=True)
        for number, one in enumerate(scans):
            np.save(tmp_path / name / "points" / f"{number}.npy", one)
        return open_data(tmp_path / name).brightest

    share, whole = rng.random(200), rng.integers(0, 256, 200).astype(float)
    assert read("spike", [scan(np.where(np.arange(200) == 7, 7, share))]) == 1
    assert read("dark bytes", [scan(whole % 3)]) == 255
    odd = [np.where(np.arange(200) == 7, value, whole) for value in (-1, 300)]
    assert read("odd bytes", [scan(values) for values in (whole, whole, whole, *odd)]) == 255
    assert read("raw counts", [scan(whole * 16)]) == 1
