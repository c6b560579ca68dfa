"""Scores against cases computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fewer.tasks.detect3d.evaluation import score_detections
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.kitti import Calibration, parse_label
from fewer.tasks.detect3d.metrics.bands import agreement, count_bands
from fewer.tasks.detect3d.metrics.curve import Case, precision_curve
from fewer.tasks.detect3d.metrics.kitti_ap import kitti_ap
from fewer.tasks.detect3d.metrics.nuscenes_ap import nuscenes_scores
from fewer.tasks.detect3d.metrics.once_ap import once_ap


def car(x: float, y: float = 0.0, yaw: float = 0.0) -> list[float]:
    return [x, y, 0, 4, 2, 1.5, yaw]


def objects(rows: list[list[float]], scores: list[float] | None = None, name: str = "Car", **more) -> Objects:
    given = None if scores is None else np.array(scores)
    return Objects(np.array(rows).reshape(-1, 7), (name,) * len(rows), given, **more)


def many(count: int) -> list[list[float]]:
    return [car(10 * i, 5) for i in range(1, count + 1)]


def test_all_found_is_one_hundred():
    # 41 thresholds need 40 objects; fewer leave the upper recalls of the curve at 0, as in the official code
    truth = objects(many(40))
    found = objects(many(40), list(np.linspace(0.9, 0.1, 40)))
    scores = kitti_ap([truth], [found], "Car")
    assert scores["R40"] == pytest.approx(100 * 39 / 40)
    assert kitti_ap([truth] * 2, [found] * 2, "Car")["R40"] == pytest.approx(100)
    assert kitti_ap([truth] * 2, [found] * 2, "Car")["R11"] == pytest.approx(100)


def test_half_found():
    truth, found = objects(many(40)), objects(many(20), list(np.linspace(0.9, 0.5, 20)))
    # recalls up to one half have precision 1: 20 of 40 steps, and 6 of 11
    scores = kitti_ap([truth] * 2, [found] * 2, "Car")
    assert scores["R40"] == pytest.approx(50, abs=2.6)
    assert scores["R11"] == pytest.approx(100 * 6 / 11, abs=9.2)


def test_spurious_boxes_before_and_after():
    truth = objects(many(40))
    wrong = [car(10 * i, 40) for i in range(1, 41)]
    late = objects(many(40) + wrong, [0.9] * 40 + [0.1] * 40)
    assert kitti_ap([truth] * 2, [late] * 2, "Car")["R40"] == pytest.approx(100)
    early = objects(many(40) + wrong, [0.5] * 40 + [0.9] * 40)
    assert kitti_ap([truth] * 2, [early] * 2, "Car")["R40"] == pytest.approx(50)


def test_what_does_not_count():
    boxes = np.array(many(3))
    pixels = np.array([[0, 0, 50, 50], [0, 0, 50, 30], [0, 0, 50, 50.0]])
    truth = Objects(boxes, ("Car", "Car", "Van"), None, None, pixels, np.zeros(3), np.array([0, 0, 0.0]))
    found = objects(many(3), [0.9, 0.8, 0.7], image=pixels)
    for difficulty, count in (("easy", 1), ("moderate", 2)):
        scores = kitti_ap([truth], [found], "Car", difficulty=difficulty)
        assert scores["objects"] == count
        # the van and the car that is too small make nothing wrong
        curve = 100 * (count if count == 1 else 2) / 40
        assert scores["R40"] == pytest.approx(curve, abs=2.6)
    hidden = Objects(boxes, ("Car",) * 3, None, None, pixels, np.zeros(3), np.array([0, 1, 3.0]))
    assert [kitti_ap([hidden], [found], "Car", difficulty=d)["objects"] for d in ("easy", "moderate", "hard")] == [
        1,
        2,
        2,
    ]
    near = kitti_ap([objects(many(3))], [found], "Car", reach=(0, -40, -3, 25, 40, 1))
    assert near["objects"] == 2


def test_curve_against_the_plain_one_where_all_counts():
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(30):
        overlap = (rng.random((8, 5)) > 0.85) * rng.random((8, 5))
        cases.append(Case(overlap, rng.random(8), np.zeros(5, int), np.zeros(8, int)))
    curve = precision_curve(cases, 0.0, 40)
    assert (np.diff(curve) <= 0).all() and 0 < curve[0] <= 1


def test_wrong_height_fails_in_space_only():
    truth = objects(many(40))
    lifted = objects([[*row[:2], 1.0, *row[3:]] for row in many(40)], [0.9] * 40)
    assert kitti_ap([truth] * 2, [lifted] * 2, "Car")["R40"] == 0
    assert kitti_ap([truth] * 2, [lifted] * 2, "Car", metric="bev")["R40"] == pytest.approx(100)


def test_nuscenes_by_hand():
    truth = [objects([car(10), car(20)], name="car", velocity=np.array([[1.0, 0], [0, 0]]))]
    shifted = [objects([car(10.8), car(20, yaw=0.3)], [0.9, 0.8], "car", velocity=np.array([[1.0, 0.5], [0, 0]]))]
    scores = nuscenes_scores(truth, shifted, ["car", "bus"])
    # 0.8 m off: at half a metre only the second matches, which has precision 1/2 at recalls up to 1/2
    wanted = np.interp(np.linspace(0, 1, 101), [0, 0.5], [0, 0.5], right=0)[11:] - 0.1
    half = np.maximum(wanted, 0).mean() / 0.9
    assert scores["mAP"] == pytest.approx((half + 3) / 4)
    # running means: 0.8 and then 0.4; up to recall 1/2 the first alone
    assert 0.4 < scores["mATE"] < 0.8 and 0 < scores["mAOE"] < 0.15 and scores["mASE"] == pytest.approx(0)
    assert scores["mAVE"] > 0.25
    assert 0 < scores["NDS"] < 0.9
    perfect = nuscenes_scores(
        truth, [objects([car(10), car(20)], [0.9, 0.8], "car", velocity=truth[0].velocity)], ["car"]
    )
    assert perfect["NDS"] == pytest.approx(0.9)  # all but attributes
    assert nuscenes_scores(truth, [objects([], [], "car")], ["car"])["mAP"] == 0


def test_once_and_orientation():
    truth = objects(many(50))
    straight = objects(many(50), [0.9] * 50)
    backwards = objects([[*row[:6], np.pi] for row in many(50)], [0.9] * 50)
    assert once_ap([truth] * 2, [straight] * 2, "Car")["overall"] == pytest.approx(100)
    assert once_ap([truth] * 2, [backwards] * 2, "Car")["overall"] == 0
    near, shown = objects(many(2)), objects(many(2), [0.9] * 2)
    assert once_ap([near] * 40, [shown] * 40, "Car")["0-30m"] == pytest.approx(100)


def test_bands():
    truth = objects([car(10), car(20), car(40), car(60)])
    found = objects([car(10), car(40), car(22, 20)], [0.9, 0.8, 0.7])
    rows = count_bands([truth], [found], "Car")
    assert [(r.objects, r.found, r.missed, r.spurious) for r in rows] == [
        (1, 1, 0, 0),
        (1, 0, 1, 1),
        (1, 1, 0, 0),
        (1, 0, 1, 0),
    ]
    same = agreement([found], [found], "Car")
    assert sum(r.missed + r.spurious for r in same) == 0 and sum(r.found for r in same) == 3


def test_labels_whose_image_columns_are_filled_with_zeros():
    """Data without a camera in KITTI's files: every object was too small in the image to count."""
    calibration = Calibration.usual()
    line = "{} 0 0 0 {} 1.5 2 4 {} 1.7 20 0\n"
    zeros = parse_label("".join(line.format("Car", "0 0 0 0", x) for x in (-6, 0, 6)), calibration)
    assert zeros.image is None and zeros.occlusion is None
    found = replace(zeros, scores=np.array([0.9, 0.8, 0.7]), image=np.zeros((3, 4)))
    scores = score_detections([zeros] * 14, [found] * 14, ["Car"])
    assert scores.ap("Car", "easy") == pytest.approx(100) and scores.rows[0]["objects"] == 42
    assert "no boxes in an image" in scores.note and scores.rows[0]["overlap"] == 0.7
    seen = parse_label(line.format("Car", "500 150 600 230", 0) + line.format("Car", "0 0 0 0", 6), calibration)
    assert kitti_ap([seen], [found], "Car")["objects"] == 1


def test_nothing_to_score_is_told_and_is_no_zero():
    scores = score_detections([Objects()], [objects(many(2), [0.9, 0.8])], ["Car"])
    assert scores.measures() == {} and "No labelled object counts" in scores.note
    assert score_detections([objects(many(2), name="car")], [Objects()], ["car"]).rows[0]["overlap"] == 0.7
