"""Detection scores of nuScenes (Caesar et al., CVPR 2020): AP by distance of centres, errors of true positives, NDS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewer.tasks.detect3d.boxes import Floats, limit_angle
from fewer.tasks.detect3d.frames import Objects

__all__ = ["DISTANCES", "nuscenes_scores"]

DISTANCES = (0.5, 1.0, 2.0, 4.0)
"""Metres between centres, seen from above, at which AP is taken; errors are taken at 2."""

_LEAST_RECALL = _LEAST_PRECISION = 0.1
_ERRORS = ("trans", "scale", "orient", "vel")
_NO_ERROR = {"traffic_cone": ("orient", "vel"), "barrier": ("vel",)}
"""Not averaged, as published: a cone looks the same from all sides, and neither it nor a barrier drives."""
_NO_FRONT = ("barrier",)
"""Classes whose two ends are alike: half a turn is no error."""


def nuscenes_scores(truths: Sequence[Objects], found: Sequence[Objects], classes: Sequence[str]) -> dict[str, float]:
    """mAP, mean errors of true positives and NDS.

    The attribute of an object (a parked or a moving car, say) is not detected here: its error counts as 1 in NDS, and
    so does that of velocities where data or detector has none.

    Parameters
    ----------
    truths, found
        Of each scan; detections need scores.
    classes
        That are averaged; a class without an object is left out.

    Returns
    -------
    dict
        ``mAP`` and ``NDS`` (0 to 1), ``mATE`` (metres), ``mASE`` (1 - overlap of aligned boxes), ``mAOE`` (radians),
        ``mAVE`` (metres per second), and ``AP CLASS``.

    Examples
    --------
    >>> box = np.array([[10, 0, 0, 4, 2, 1.5, 0.0]])
    >>> scores = nuscenes_scores([Objects(box, ("car",))], [Objects(box, ("car",), np.array([0.9]))], ["car"])
    >>> round(scores["mAP"], 6), scores["mATE"]
    (1.0, 0.0)
    """
    present = [name for name in classes if any(name in t.classes for t in truths)]
    out: dict[str, float] = {}
    errors: dict[str, list[float]] = {name: [] for name in _ERRORS}
    for name in present:
        precisions = []
        for distance in DISTANCES:
            curve, measured = _matched(truths, found, name, distance)
            precisions.append(_average_precision(curve))
            if distance == 2.0:
                for error in _ERRORS:
                    if error not in _NO_ERROR.get(name, ()):
                        errors[error].append(measured[error])
        out[f"AP {name}"] = float(np.mean(precisions))
    out["mAP"] = float(np.mean([out[f"AP {n}"] for n in present])) if present else 0.0
    means = {error: float(np.nanmean(v)) if v and not np.isnan(v).all() else 1.0 for error, v in errors.items()}
    out |= {"mATE": means["trans"], "mASE": means["scale"], "mAOE": means["orient"], "mAVE": means["vel"]}
    # five errors with a weight of 1 each beside mAP with 5; the fifth, of attributes, is 1
    out["NDS"] = (5 * out["mAP"] + sum(1 - min(1.0, means[error]) for error in _ERRORS)) / 10
    return out


def _matched(
    truths: Sequence[Objects], found: Sequence[Objects], name: str, distance: float
) -> tuple[tuple[Floats, Floats, Floats], dict[str, float]]:
    """Recall, precision and confidence at 101 recalls, and the errors of this class."""
    own_truths, own = [t.of([name]) for t in truths], [f.of([name]) for f in found]
    total = sum(len(t) for t in own_truths)
    rows = [(float(s), i, j) for i, f in enumerate(own) for j, s in enumerate(f.scores if f.scores is not None else [])]
    rows.sort(key=lambda row: -row[0])
    free = [np.ones(len(t), dtype=bool) for t in own_truths]
    hits, scores, measured = [], [], []
    for score, i, j in rows:
        box, truth = own[i].boxes[j], own_truths[i]
        apart = np.where(free[i], np.hypot(*(truth.boxes[:, :2] - box[:2]).T), np.inf)
        at = int(apart.argmin()) if len(apart) else -1
        hit = at >= 0 and apart[at] < distance
        hits.append(hit)
        scores.append(score)
        if hit:
            free[i][at] = False
            measured.append((score, *_errors(own[i], j, truth, at)))
    recalls = np.linspace(0, 1, 101)
    if not measured:
        return (recalls, np.zeros(101), np.zeros(101)), dict.fromkeys(_ERRORS, 1.0)
    right = np.cumsum(hits)
    recall, precision = right / total, right / np.arange(1, len(hits) + 1)
    curve = (
        recalls,
        np.interp(recalls, recall, precision, right=0),
        np.interp(recalls, recall, np.array(scores), right=0),
    )
    return curve, _mean_errors(np.array(measured), curve[2])


def _errors(found: Objects, j: int, truth: Objects, at: int) -> tuple[float, float, float, float]:
    a, b = found.boxes[j], truth.boxes[at]
    shared = np.minimum(a[3:6], b[3:6]).prod()
    scale = 1 - shared / (a[3:6].prod() + b[3:6].prod() - shared)
    turn = abs(float(limit_angle(np.array(a[6] - b[6]))))
    if truth.classes[at] in _NO_FRONT:
        turn = min(turn, np.pi - turn)
    speed = float("nan")
    if found.velocity is not None and truth.velocity is not None:
        speed = float(np.linalg.norm(found.velocity[j] - truth.velocity[at]))
    return float(np.hypot(*(a[:2] - b[:2]))), float(scale), turn, speed


def _mean_errors(measured: Floats, confidence: Floats) -> dict[str, float]:
    """Mean of the running means over all recalls from 0.1 to the highest that is reached."""
    out, first = {}, round(100 * _LEAST_RECALL) + 1
    reached = np.flatnonzero(confidence)
    last = int(reached[-1]) if len(reached) else 0
    for column, error in enumerate(_ERRORS, 1):
        values = measured[:, column]
        known = ~np.isnan(values)
        if not known.any():
            out[error] = float("nan")
            continue
        running = np.cumsum(np.where(known, values, 0)) / np.maximum(np.cumsum(known), 1)
        along = np.interp(confidence[::-1], measured[::-1, 0], running[::-1])[::-1]
        out[error] = 1.0 if last < first else float(along[first : last + 1].mean())
    return out


def _average_precision(curve: tuple[Floats, Floats, Floats]) -> float:
    above = np.maximum(curve[1][round(100 * _LEAST_RECALL) + 1 :] - _LEAST_PRECISION, 0)
    return float(above.mean()) / (1 - _LEAST_PRECISION)
