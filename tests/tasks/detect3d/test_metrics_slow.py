"""Scores against slow implementations, one loop after another, written down from the published evaluation codes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.metrics.kitti_ap import DIFFICULTIES, kitti_ap
from fewer.tasks.detect3d.metrics.nuscenes_ap import DISTANCES, nuscenes_scores
from fewer.tasks.detect3d.metrics.once_ap import BANDS, once_ap
from fewer.tasks.detect3d.overlap import bev_iou, box_iou

NAMES = ("Car", "Van", "Pedestrian", "Person_sitting", "Cyclist")


def scenes(seed: int, count: int = 12, names: tuple[str, ...] = NAMES) -> tuple[list[Objects], list[Objects]]:
    """Truth of scans with every difficulty, and detections: near objects, twice, elsewhere, too small in the image."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(count):
        n = int(rng.integers(0, 9))
        boxes = np.c_[rng.uniform(1, 60, n), rng.uniform(-20, 20, n), rng.uniform(-2, 0, n), rng.uniform(1, 4, (n, 3))]
        boxes = np.c_[boxes, rng.uniform(-4, 4, n)]
        labels = tuple(rng.choice(names, n))
        top = rng.uniform(50, 100, n)
        image = np.c_[top, top, top + 60, top + rng.choice([20, 25, 30, 40, 41, 80], n)]
        truths.append(
            Objects(
                boxes,
                labels,
                velocity=rng.normal(0, 2, (n, 2)),
                image=image,
                occlusion=rng.integers(0, 4, n),
                truncation=rng.choice([0, 0.1, 0.2, 0.4, 0.6], n),
            )
        )
        at = rng.integers(0, n, 2 * n) if n else np.zeros(0, dtype=int)
        guess = boxes[at] + rng.normal(0, 1, (len(at), 7)) * np.array([0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
        guess[:, 3:6] = np.abs(guess[:, 3:6]) + 0.1
        guess[rng.random(len(at)) < 0.2, 6] += np.pi
        guess[rng.random(len(at)) < 0.2, :2] += 8
        found.append(
            Objects(
                guess,
                tuple(labels[i] if rng.random() < 0.9 else str(rng.choice(names)) for i in at),
                rng.random(len(at)).round(3) * 0.9 + rng.random(len(at)) * 1e-6,
                rng.normal(0, 2, (len(at), 2)),
                image=np.c_[np.zeros((len(at), 3)), rng.choice([20.0, 30, 60], len(at))],
            )
        )
    return truths, found


def statistics(overlap, scores, ignored_truth, ignored_found, least, threshold):
    """Right and wrong detections, and the scores of the right ones; the inner loop of KITTI's evaluation."""
    taken = [False] * len(scores)
    right, chosen = 0, []
    for i in range(len(ignored_truth)):
        best, best_score, best_overlap, ignored_one = -1, None, 0.0, False
        for j in range(len(scores)):
            if taken[j] or (threshold is not None and scores[j] < threshold):
                continue
            if overlap[j][i] <= least:
                continue
            if threshold is None:
                if best_score is None or scores[j] > best_score:
                    best, best_score = j, scores[j]
            elif (overlap[j][i] > best_overlap or ignored_one) and not ignored_found[j]:
                best, best_overlap, ignored_one = j, overlap[j][i], False
            elif best < 0 and ignored_found[j]:
                best, ignored_one = j, True
        if best < 0:
            continue
        taken[best] = True
        if not ignored_truth[i] and not ignored_found[best]:
            right += 1
            chosen.append(scores[best])
    wrong = 0
    if threshold is not None:
        for j in range(len(scores)):
            wrong += not taken[j] and not ignored_found[j] and scores[j] >= threshold
    return right, wrong, chosen


def curve_of(cases, least: float, steps: int) -> list[float]:
    """Precision at the steps of recall."""
    total = sum(sum(not one for one in case[2]) for case in cases)
    scores = sorted((s for case in cases for s in statistics(*case, least, None)[2]), reverse=True)
    thresholds, recall = [], 0.0
    for i, score in enumerate(scores):
        left = (i + 1) / total
        right = (i + 2) / total if i < len(scores) - 1 else left
        if right - recall < recall - left and i < len(scores) - 1:
            continue
        thresholds.append(score)
        recall += 1 / steps
    precision = [0.0] * (steps + 1)
    for k, threshold in enumerate(thresholds):
        counts = [statistics(*case, least, threshold)[:2] for case in cases]
        good, bad = sum(c[0] for c in counts), sum(c[1] for c in counts)
        precision[k] = good / (good + bad)
    return [max(precision[k:]) for k in range(steps + 1)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("metric", ["3d", "bev"])
@pytest.mark.parametrize("name", ["Car", "Pedestrian", "Cyclist"])
def test_kitti(seed, metric, name):
    truths, found = scenes(seed)
    beside = {"Car": "Van", "Pedestrian": "Person_sitting"}.get(name)
    for level, (height, hidden, cut) in DIFFICULTIES.items():
        cases = []
        for truth, guess in zip(truths, found, strict=True):
            t = [i for i, c in enumerate(truth.classes) if c in (name, beside)]
            f = [j for j, c in enumerate(guess.classes) if c == name]
            tall = truth.image[:, 3] - truth.image[:, 1]
            skip = [
                truth.classes[i] != name
                or tall[i] <= height
                or truth.occlusion[i] > hidden
                or truth.truncation[i] > cut
                for i in t
            ]
            small = [guess.image[j, 3] - guess.image[j, 1] < height for j in f]
            measure = box_iou if metric == "3d" else bev_iou
            overlap = measure(guess.boxes[f], truth.boxes[t])
            cases.append((overlap, [guess.scores[j] for j in f], skip, small))
        curve = curve_of(cases, 0.3, 40)
        got = kitti_ap(truths, found, name, difficulty=level, metric=metric, overlap=0.3)
        assert got["R40"] == pytest.approx(100 * sum(curve[1:]) / 40)
        assert got["R11"] == pytest.approx(100 * sum(curve[k] for k in range(0, 41, 4)) / 11)
        assert got["objects"] == sum(sum(not s for s in case[2]) for case in cases)


@pytest.mark.parametrize("seed", range(3))
def test_once(seed):
    truths, found = scenes(seed)
    got = once_ap(truths, found, "Car", overlap=0.3)
    for band, (near, far) in BANDS.items():
        cases = []
        for truth, guess in zip(truths, found, strict=True):
            t, f = truth.of(["Car"]), guess.of(["Car"])
            overlap = box_iou(f.boxes, t.boxes)
            for j in range(len(f)):
                for i in range(len(t)):
                    turn = abs(f.boxes[j, 6] - t.boxes[i, 6]) % (2 * math.pi)
                    if min(turn, 2 * math.pi - turn) > math.pi / 2:
                        overlap[j, i] = 0
            away = [[not near <= math.hypot(*box[:2]) < far for box in o.boxes] for o in (t, f)]
            cases.append((overlap, list(f.scores), away[0], away[1]))
        if not any(not one for case in cases for one in case[2]):
            continue
        assert got[band] == pytest.approx(100 * sum(curve_of(cases, 0.3, 50)[1:]) / 50)


def nuscenes_class(truths, found, name: str, distance: float):
    """Precision and confidence at 101 recalls, and the running mean of each error at these, for one class."""
    rows = [(s, i, j) for i, f in enumerate(found) for j, s in enumerate(f.scores) if f.classes[j] == name]
    rows.sort(reverse=True)
    total = sum(t.classes.count(name) for t in truths)
    taken, hits, scores = set(), [], []
    errors: dict[str, list[float]] = {"conf": [], "trans": [], "scale": [], "orient": [], "vel": []}
    for score, i, j in rows:
        best, least = None, math.inf
        for k, label in enumerate(truths[i].classes):
            apart = math.dist(truths[i].boxes[k, :2], found[i].boxes[j, :2])
            if label == name and (i, k) not in taken and apart < least:
                best, least = k, apart
        hits.append(best is not None and least < distance)
        scores.append(score)
        if not hits[-1]:
            continue
        taken.add((i, best))
        a, b = truths[i].boxes[best], found[i].boxes[j]
        shared = math.prod(min(x, y) for x, y in zip(a[3:6], b[3:6], strict=True))
        period = math.pi if name == "barrier" else 2 * math.pi
        turn = (a[6] - b[6] + period / 2) % period - period / 2
        errors["conf"].append(score)
        errors["trans"].append(least)
        errors["scale"].append(1 - shared / (math.prod(a[3:6]) + math.prod(b[3:6]) - shared))
        errors["orient"].append(abs(turn))
        errors["vel"].append(math.dist(truths[i].velocity[best], found[i].velocity[j]))
    if not any(hits):
        return [0.0] * 101, dict.fromkeys(("trans", "scale", "orient", "vel"), 1.0)
    recall = [sum(hits[: k + 1]) / total for k in range(len(hits))]
    precision = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
    steps = np.linspace(0, 1, 101)
    along, sure = np.interp(steps, recall, precision, right=0), np.interp(steps, recall, scores, right=0)
    last = max((k for k in range(101) if sure[k] != 0), default=0)
    means = {}
    for error in ("trans", "scale", "orient", "vel"):
        running = [sum(errors[error][: k + 1]) / (k + 1) for k in range(len(errors[error]))]
        at = np.interp(sure[::-1], errors["conf"][::-1], running[::-1])[::-1]
        means[error] = 1.0 if last < 11 else float(sum(at[11 : last + 1]) / (last - 10))
    return along, means


@pytest.mark.parametrize("seed", range(4))
def test_nuscenes(seed):
    names = ("car", "barrier", "traffic_cone", "pedestrian")
    truths, found = scenes(seed, names=names)
    got = nuscenes_scores(truths, found, names)
    errors: dict[str, list[float]] = {"trans": [], "scale": [], "orient": [], "vel": []}
    total = 0.0
    for name in names:
        ap = 0.0
        for distance in DISTANCES:
            along, means = nuscenes_class(truths, found, name, distance)
            ap += sum(max(0.0, p - 0.1) for p in along[11:]) / 90 / 0.9 / 4
            if distance == 2:
                for error, value in means.items():
                    # a cone looks the same from all sides, and neither it nor a barrier drives
                    if (name == "traffic_cone" and error in ("orient", "vel")) or (name, error) == ("barrier", "vel"):
                        continue
                    errors[error].append(value)
        assert got[f"AP {name}"] == pytest.approx(ap)
        total += ap / len(names)
    assert got["mAP"] == pytest.approx(total)
    short = {"trans": "mATE", "scale": "mASE", "orient": "mAOE", "vel": "mAVE"}
    for error, values in errors.items():
        assert got[short[error]] == pytest.approx(sum(values) / len(values))
    parts = [1 - min(1, sum(v) / len(v)) for v in errors.values()]
    assert got["NDS"] == pytest.approx((5 * total + sum(parts)) / 10)
