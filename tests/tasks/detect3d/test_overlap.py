"""Overlap of rotated boxes against polygons of shapely and hand-computed cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewer.models.spec import load_model
from fewer.tasks.detect3d.boxes import bev_corners, box_corners, points_in_boxes, turned
from fewer.tasks.detect3d.demo import trained_detector
from fewer.tasks.detect3d.overlap import bev_iou, box_iou, common_area, rotated_nms, voted
from fewer.tasks.detect3d.simulator import SENSORS, Streets


def some_boxes(count: int, seed: int, spread: float = 4.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [
            rng.uniform(-spread, spread, (count, 2)),
            rng.uniform(-1, 1, count),
            rng.uniform(0.3, 6, (count, 3)),
            rng.uniform(-7, 7, count),
        ]
    )


def test_against_shapely():
    shapely = pytest.importorskip("shapely", reason="the oracle of polygons needs shapely")
    first, second = some_boxes(60, 0), some_boxes(50, 1)
    # the awkward ones: the same box, turned by right angles, sharing an edge or a corner, one inside the other
    second[:6] = first[:6]
    second[1, 6] += np.pi
    second[2, 6] += np.pi / 2
    second[3, :2] += first[3, 3] * np.array([np.cos(first[3, 6]), np.sin(first[3, 6])])
    second[4, 3:5] *= 0.5
    second[5, 6] += 1e-8
    polygons = [[shapely.Polygon(corners) for corners in bev_corners(boxes)] for boxes in (first, second)]
    wanted = np.array([[a.intersection(b).area for b in polygons[1]] for a in polygons[0]])
    i, j = np.indices(wanted.shape)
    got = common_area(first[i.ravel()], second[j.ravel()]).reshape(wanted.shape)
    assert np.abs(got - wanted).max() < 1e-7
    either = np.array([[a.union(b).area for b in polygons[1]] for a in polygons[0]])
    assert np.abs(bev_iou(first, second) - wanted / either).max() < 1e-7


def test_in_space_against_a_grid_of_points():
    a, b = np.array([0, 0, 0, 4, 2, 1.5, 0.4]), np.array([0.7, -0.3, 0.4, 3, 1.5, 1.2, -0.9])
    rng = np.random.default_rng(0)
    points = rng.uniform(-3, 3, (400_000, 3))
    inside = points_in_boxes(points, np.stack([a, b]))
    wanted = inside.all(0).sum() / inside.any(0).sum()
    assert abs(box_iou(a[None], b[None])[0, 0] - wanted) < 0.01


def test_by_hand():
    box = np.array([[10, -5, 0, 4, 2, 1, 0.5]])
    assert box_iou(box, box)[0, 0] == pytest.approx(1)
    assert box_iou(box, box + np.array([0, 0, 1.01, 0, 0, 0, 0]))[0, 0] == 0
    square = np.array([[0, 0, 0, 2, 2, 1, 0.0]])
    # a square and the same one turned by 45 degrees share a regular octagon
    octagon = 8 * (np.sqrt(2) - 1)
    assert common_area(square, turned(square, np.pi / 4))[0] == pytest.approx(octagon)
    assert bev_iou(np.zeros((0, 7)), square).shape == (0, 1)


def test_turning_both_changes_nothing():
    a, b = some_boxes(30, 3), some_boxes(30, 4)
    assert np.allclose(box_iou(a, b), box_iou(turned(a, 1.1), turned(b, 1.1)), atol=1e-9)


def test_nms_against_the_plain_loop():
    boxes, scores = some_boxes(80, 5), np.random.default_rng(6).uniform(size=80)
    iou = bev_iou(boxes, boxes)
    kept: list[int] = []
    for i in np.argsort(-scores):
        if all(iou[i, j] <= 0.2 for j in kept):
            kept.append(int(i))
    assert rotated_nms(boxes, scores, 0.2).tolist() == kept
    assert rotated_nms(boxes, scores, 0.2, most=3).tolist() == kept[:3]
    assert rotated_nms(np.zeros((0, 7)), np.zeros(0), 0.5).size == 0


def test_points_and_corners_agree():
    boxes = some_boxes(20, 7)
    corners = box_corners(boxes)
    for i in range(20):
        towards = boxes[i, :3] + 0.999 * (corners[i] - boxes[i, :3])
        beyond = boxes[i, :3] + 1.001 * (corners[i] - boxes[i, :3])
        assert points_in_boxes(towards, boxes[i : i + 1]).all()
        assert not points_in_boxes(beyond, boxes[i : i + 1]).any()


def test_boxes_that_overlap_have_a_say_where_a_kept_one_stands():
    first = [10, 0, -1, 4, 2, 1.5, 3.1]
    boxes = np.array([
        first,
        [10.4, 0, -1.2, 4, 2, 1.5, -3.1],  # heads the same way, on the other side of half a turn
        [10.4, 0, -1, 4, 2, 1.5, 0.0],  # heads the other way
        [12.5, 0, -1, 4, 2, 1.5, 3.1],  # overlaps too little
        [30, 9, -1, 4, 2, 1.5, 0.0],
    ])  # fmt: skip
    scores = np.array([0.8, 0.4, 0.7, 0.6, 0.3])
    moved = voted(boxes, scores, np.array([0, 4]), 0.6)
    share = 0.4 * bev_iou(boxes[:1], boxes[1:2])[0, 0]
    share /= 0.8 + share
    assert np.allclose(moved[0, :6], boxes[0, :6] + share * (boxes[1, :6] - boxes[0, :6]))
    assert np.isclose(moved[0, 6], 3.1 + share * (2 * np.pi - 6.2))
    assert np.allclose(moved[1], boxes[4])
    flat = np.array([[1.0, 0, 0, 0, 0, 0, 0, 7, 8]])  # of no size, with a velocity
    assert np.array_equal(voted(flat, np.array([0.0]), np.array([0]), 0.6), flat)


def test_a_box_stands_where_it_stands_whatever_the_least_confidence():
    net = load_model(str(trained_detector())).model
    scan = torch.from_numpy(Streets(SENSORS["hdl-64"].ahead(40), seed=5).frame(0).points)
    many, few = net.detect(scan, score=0.05)[0], net.detect(scan, score=0.3)[0]
    assert 0 < len(few) < len(many) and np.allclose(many.boxes[: len(few)], few.boxes)
    net.config = net.config.model_copy(update={"vote": None})
    alone = net.detect(scan, score=0.3)[0]
    assert np.array_equal(alone.scores, few.scores) and 0.005 < np.abs(alone.boxes - few.boxes)[:, :2].max() < 1


def awkward_pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of boxes: any two, the same, touching at an edge or a corner, contained, thin, turned by right angles."""
    rng = np.random.default_rng(5)
    place = np.c_[rng.uniform(-60, 60, (count, 2)), rng.uniform(-1, 1, count)]
    first = np.c_[place, rng.uniform(0.3, 6, (count, 3)), rng.uniform(-7, 7, count)]
    kind = np.arange(count) % 8
    first[kind == 4, 4] = 1e-3
    second = first.copy()
    c, s = np.cos(first[:, 6]), np.sin(first[:, 6])
    long, across = first[:, 3, None] * np.c_[c, s], first[:, 4, None] * np.c_[-s, c]
    second[kind == 0, :2] += rng.normal(0, 2, ((kind == 0).sum(), 2))
    second[kind == 0, 3:6] = rng.uniform(0.3, 6, ((kind == 0).sum(), 3))
    second[kind == 0, 6] = rng.uniform(-7, 7, (kind == 0).sum())
    second[kind == 2, :2] += long[kind == 2]
    second[kind == 3, 3:5] *= rng.uniform(0.1, 0.9, ((kind == 3).sum(), 1))
    second[kind == 4, 6] += rng.normal(0, 0.01, (kind == 4).sum())
    second[kind == 5, 6] += np.pi / 2 * rng.integers(0, 4, (kind == 5).sum())
    second[kind == 6, :2] += (long + across)[kind == 6]
    second[kind == 7, 6] += rng.normal(0, 1e-8, (kind == 7).sum())
    return first, second


def test_a_thousand_awkward_pairs_against_shapely():
    shapely = pytest.importorskip("shapely", reason="the oracle of polygons needs shapely")
    first, second = awkward_pairs(1000)
    a, b = ([shapely.Polygon(corners) for corners in bev_corners(boxes)] for boxes in (first, second))
    shared = np.array([p.intersection(q).area for p, q in zip(a, b, strict=True)])
    either = np.array([p.union(q).area for p, q in zip(a, b, strict=True)])
    assert np.abs(common_area(first, second) - shared).max() < 1e-6
    got = np.array([bev_iou(p[None], q[None])[0, 0] for p, q in zip(first, second, strict=True)])
    assert np.abs(got - shared / either).max() < 1e-6
    bottom = np.maximum(first[:, 2] - first[:, 5] / 2, second[:, 2] - second[:, 5] / 2)
    top = np.minimum(first[:, 2] + first[:, 5] / 2, second[:, 2] + second[:, 5] / 2)
    inside = shared * np.maximum(top - bottom, 0)
    whole = first[:, 3:6].prod(1) + second[:, 3:6].prod(1) - inside
    space = np.array([box_iou(p[None], q[None])[0, 0] for p, q in zip(first, second, strict=True)])
    assert np.abs(space - inside / whole).max() < 1e-6
