"""Exact overlap of rotated boxes, from above and in space, and suppression of all but the best that overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewer.tasks.detect3d.boxes import Floats, bev_corners

__all__ = ["bev_iou", "box_iou", "common_area", "rotated_nms", "voted"]

_EDGE = 1e-9
"""Relative tolerance of a point on an edge; areas are off by less than this times the size of a box."""

_CHUNK = 65536
_SAME_WAY = 0.7
"""Cosine between headings from which on two boxes of an object agree which way it looks."""


def common_area(first: Floats, second: Floats) -> Floats:
    """Area that boxes share seen from above, pair by pair.

    The corners of each rectangle that lie in the other one and the crossings of their edges are the corners of what
    they share; put in order around their mean, the shoelace formula gives the area.

    Parameters
    ----------
    first, second
        Shape (pairs, 7).

    Returns
    -------
    array
        Square metres, shape (pairs,).

    Examples
    --------
    >>> box = np.array([[0, 0, 0, 4, 2, 1, 0.0]])
    >>> common_area(box, box + [1, 0, 0, 0, 0, 0, 0]).tolist()
    [6.0]
    """
    out = np.empty(len(first))
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = _shared(np.asarray(first[part], float), np.asarray(second[part], float))
    return out


def _shared(first: Floats, second: Floats) -> Floats:
    # about the centre of the first box: far from the origin, digits would be lost
    origin = first[:, None, :2]
    a, b = bev_corners(first) - origin, bev_corners(second) - origin
    in_b, in_a = _inside(a, b), _inside(b, a)
    points, good = [a, b], [in_b, in_a]
    da, db = np.roll(a, -1, 1) - a, np.roll(b, -1, 1) - b
    # edge i of a meets edge j of b at a_i + t da_i = b_j + u db_j
    gap = b[:, None, :, :] - a[:, :, None, :]
    cross = da[:, :, None, 0] * db[:, None, :, 1] - da[:, :, None, 1] * db[:, None, :, 0]
    scale = np.linalg.norm(da, axis=-1)[:, :, None] * np.linalg.norm(db, axis=-1)[:, None, :]
    meets = np.abs(cross) > 1e-12 * scale  # parallel edges add nothing that the corners do not
    safe = np.where(meets, cross, 1.0)
    t = (gap[..., 0] * db[:, None, :, 1] - gap[..., 1] * db[:, None, :, 0]) / safe
    u = (gap[..., 0] * da[:, :, None, 1] - gap[..., 1] * da[:, :, None, 0]) / safe
    meets &= (t >= -_EDGE) & (t <= 1 + _EDGE) & (u >= -_EDGE) & (u <= 1 + _EDGE)
    crossing = a[:, :, None, :] + t[..., None] * da[:, :, None, :]
    points.append(crossing.reshape(len(a), 16, 2))
    good.append(meets.reshape(len(a), 16))
    return _hull_area(np.concatenate(points, 1), np.concatenate(good, 1))


def _inside(points: Floats, corners: Floats) -> NDArray[np.bool_]:
    edge = np.roll(corners, -1, 1) - corners
    away = points[:, :, None, :] - corners[:, None, :, :]
    side = edge[:, None, :, 0] * away[..., 1] - edge[:, None, :, 1] * away[..., 0]
    return (side >= -_EDGE * np.square(edge).sum(-1)[:, None, :].clip(1e-12)).all(-1)


def _hull_area(points: Floats, good: NDArray[np.bool_]) -> Floats:
    count = good.sum(1)
    middle = np.where(good[..., None], points, 0).sum(1) / np.maximum(count, 1)[:, None]
    away = points - middle[:, None]
    angle = np.where(good, np.arctan2(away[..., 1], away[..., 0]), np.inf)
    order = np.argsort(angle, axis=1)
    ordered = np.take_along_axis(away, order[..., None], 1)
    # places beyond the last corner repeat the first one, which adds no area
    kept = np.arange(points.shape[1])[None] < count[:, None]
    ordered = np.where(kept[..., None], ordered, ordered[:, :1])
    following = np.roll(ordered, -1, 1)
    area = 0.5 * (ordered[..., 0] * following[..., 1] - ordered[..., 1] * following[..., 0]).sum(1)
    return np.where(count >= 3, np.abs(area), 0.0)


def _pairs(first: Floats, second: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs whose circles from above meet; all others share nothing."""
    reach = np.hypot(first[:, 3], first[:, 4])[:, None] / 2 + np.hypot(second[:, 3], second[:, 4])[None] / 2
    apart = np.square(first[:, None, :2] - second[None, :, :2]).sum(-1)
    i, j = np.nonzero(apart <= reach**2)
    return i, j


def bev_iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union seen from above, every box of one set with every one of the other.

    Parameters
    ----------
    first, second
        Shape (n, 7) and (m, 7).

    Returns
    -------
    array
        Shape (n, m), 0 to 1.

    Examples
    --------
    >>> box = np.array([[0, 0, 0, 4, 2, 1, 0.0]])
    >>> round(float(bev_iou(box, box + [2, 0, 0, 0, 0, 0, 0])[0, 0]), 4)
    0.3333
    """
    first, second = np.asarray(first, float).reshape(-1, 7), np.asarray(second, float).reshape(-1, 7)
    out = np.zeros((len(first), len(second)))
    i, j = _pairs(first, second)
    shared = common_area(first[i], second[j])
    either = first[i, 3] * first[i, 4] + second[j, 3] * second[j, 4] - shared
    out[i, j] = shared / np.maximum(either, 1e-12)
    return out


def box_iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union in space; boxes turn about z only.

    Examples
    --------
    >>> box = np.array([[0, 0, 0, 4, 2, 1, 0.3]])
    >>> box_iou(box, box + [0, 0, 0.5, 0, 0, 0, 0]).round(4).tolist()
    [[0.3333]]
    """
    first, second = np.asarray(first, float).reshape(-1, 7), np.asarray(second, float).reshape(-1, 7)
    out = np.zeros((len(first), len(second)))
    i, j = _pairs(first, second)
    a, b = first[i], second[j]
    top = np.minimum(a[:, 2] + a[:, 5] / 2, b[:, 2] + b[:, 5] / 2)
    bottom = np.maximum(a[:, 2] - a[:, 5] / 2, b[:, 2] - b[:, 5] / 2)
    shared = common_area(a, b) * np.maximum(top - bottom, 0)
    either = a[:, 3:6].prod(1) + b[:, 3:6].prod(1) - shared
    out[i, j] = shared / np.maximum(either, 1e-12)
    return out


def rotated_nms(boxes: Floats, scores: Floats, threshold: float, most: int | None = None) -> NDArray[np.intp]:
    """Keep a box unless one of a higher score overlaps it from above by more than a threshold.

    Parameters
    ----------
    boxes
        Shape (n, 7).
    scores
        Shape (n,).
    threshold
        Intersection over union from above.
    most
        Boxes kept at most.

    Returns
    -------
    array
        Indices of the kept boxes, highest score first.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 0, 4, 2, 1, 0.0], [0.1, 0, 0, 4, 2, 1, 0.1], [9, 0, 0, 4, 2, 1, 0.0]])
    >>> rotated_nms(boxes, np.array([0.5, 0.9, 0.3]), 0.5).tolist()
    [1, 2]
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    rows = np.asarray(boxes, float).reshape(-1, 7)[order]
    open_ = np.ones(len(order), dtype=bool)
    kept: list[int] = []
    for i in range(len(order)):
        if not open_[i]:
            continue
        kept.append(i)
        if most is not None and len(kept) == most:
            break
        # only boxes that are kept are compared with the rest, which is far less than all pairs
        rest = np.flatnonzero(open_[i + 1 :]) + i + 1
        open_[rest[bev_iou(rows[i : i + 1], rows[rest])[0] > threshold]] = False
    return order[kept]


def voted(boxes: Floats, scores: Floats, kept: NDArray[np.intp], threshold: float) -> Floats:
    """Boxes that were kept, each moved to the mean of all that overlap it.

    Several cells see the same object, and each puts its box a little elsewhere. Suppression throws away all of them but
    the most confident one, which need not stand best. Here every box that overlaps a kept one enough, and heads the
    same way, has a say in its place, size and heading, by its confidence times that overlap (box voting: Gidaris and
    Komodakis, ICCV 2015; weighed by overlap as well).

    Parameters
    ----------
    boxes
        All candidates of one class, shape (n, 7 or more); further columns stay as they are.
    scores
        Shape (n,).
    kept
        Indices of the boxes that :func:`rotated_nms` keeps.
    threshold
        Intersection over union from above from which on a box has a say.

    Returns
    -------
    array
        Shape (kept, 7 or more).

    Examples
    --------
    >>> boxes = np.array([[0, 0, 0, 4, 2, 1, 0.0], [0.4, 0, 0, 4, 2, 1, 0.0], [9, 0, 0, 4, 2, 1, 0.0]])
    >>> voted(boxes, np.array([0.5, 0.5, 0.3]), np.array([0, 2]), 0.6)[:, 0].round(2).tolist()
    [0.18, 9.0]
    """
    out = np.array(boxes[kept], dtype=float)
    turn = boxes[None, :, 6] - out[:, None, 6]
    overlap = bev_iou(out[:, :7], boxes[:, :7])
    weight = np.where((overlap >= threshold) & (np.cos(turn) > _SAME_WAY), overlap * scores, 0.0)
    weight[np.arange(len(kept)), kept] = np.maximum(scores[kept], 1e-9)  # a flat box overlaps not even itself
    weight /= weight.sum(1, keepdims=True)
    out[:, :6] = weight @ boxes[:, :6]
    out[:, 6] += (weight * np.arctan2(np.sin(turn), np.cos(turn))).sum(1)
    return out
