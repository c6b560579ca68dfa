"""Real KITTI frames: boxes hold the points that they should, and the labels read as they were checked by hand."""

from __future__ import annotations

import numpy as np
from tests.support.shared_data import shared_data

from fewer.tasks.detect3d.boxes import limit_angle, points_in_boxes
from fewer.tasks.detect3d.kitti import image_boxes, parse_calibration, parse_label
from fewer.tasks.detect3d.real_frames import kitti_frames, write_frames


def test_labels_of_real_frames():
    folder = shared_data("kitti_lidar")
    labelled = 0
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as frame:
            if not bool(frame["labelled"]):
                continue
            calibration = parse_calibration(str(frame["calib_txt"]), path)
            objects = parse_label(str(frame["label_txt"]), calibration, path)
            objects = objects.take(~np.isnan(objects.boxes).any(1))
            assert objects.classes == tuple(map(str, frame["classes"]))
            # the stored boxes were brought over by a transpose, ours by the inverse of the printed, rounded rotation
            assert np.abs(objects.boxes[:, :6] - frame["boxes"][:, :6]).max() < 0.05
            assert np.abs(limit_angle(objects.boxes[:, 6] - frame["boxes"][:, 6])).max() < 1e-3
            inside = points_in_boxes(frame["points"], objects.boxes, 0.05).sum(1)
            assert np.abs(inside - frame["points_in_box"]).max() < 0.15 * max(60, inside.max())
            image, _ = image_boxes(objects.boxes, calibration)
            middle = (image[:, :2] + image[:, 2:]) / 2
            annotated = (objects.image[:, :2] + objects.image[:, 2:]) / 2
            whole = objects.truncation < 0.1
            assert np.abs(middle - annotated)[whole].max() < 40
            labelled += 1
    assert labelled == 10


def test_real_frames_as_a_folder(tmp_path):
    from fewer.tasks.detect3d.dataset import open_data

    frames = kitti_frames(shared_data("kitti_lidar"))
    root = write_frames(frames, tmp_path / "real")
    data = open_data(root)
    assert len(data) == 14 and len(data.labelled()) == 10
    assert sum(len(data.objects(name)) for name in data.names) == 52
