"""Boxes in space: seven numbers each, their corners, points inside, and changes of the frame.

A box is ``x y z length width height yaw``: the centre in metres in the frame of the sensor (x ahead, y left, z up),
sizes in metres, and the angle from x to the length, anticlockwise seen from above.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "bev_corners", "box_corners", "limit_angle", "points_in_boxes", "turned"]

Floats = NDArray[np.floating]


def limit_angle(angle: Floats) -> Floats:
    """Angles brought to [-pi, pi).

    Examples
    --------
    >>> limit_angle(np.array([4.0])).round(3).tolist()
    [-2.283]
    """
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi


def bev_corners(boxes: Floats) -> Floats:
    """Corners seen from above, anticlockwise, shape (boxes, 4, 2).

    Examples
    --------
    >>> bev_corners(np.array([[0, 0, 0, 4, 2, 1, 0.0]]))[0].tolist()
    [[2.0, 1.0], [-2.0, 1.0], [-2.0, -1.0], [2.0, -1.0]]
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, np.shape(boxes)[-1] if np.size(boxes) else 7)
    unit = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    local = unit[None] * boxes[:, None, 3:5]
    c, s = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    x, y = local[..., 0], local[..., 1]
    return np.stack([c * x - s * y, s * x + c * y], -1) + boxes[:, None, :2]


def box_corners(boxes: Floats) -> Floats:
    """The eight corners, shape (boxes, 8, 3): the bottom four, then the top four.

    Examples
    --------
    >>> box_corners(np.array([[0, 0, 1, 4, 2, 1, 0.0]]))[0, 4].tolist()
    [2.0, 1.0, 1.5]
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    flat = bev_corners(boxes)
    levels = [
        np.concatenate(
            [flat, np.broadcast_to((boxes[:, 2] + side * boxes[:, 5])[:, None, None], (*flat.shape[:2], 1))], 2
        )
        for side in (-0.5, 0.5)
    ]
    return np.concatenate(levels, 1)


def points_in_boxes(points: Floats, boxes: Floats, margin: float = 0.0) -> NDArray[np.bool_]:
    """Which points lie in which boxes, shape (boxes, points).

    Parameters
    ----------
    points
        Shape (points, 3 or more), metres.
    boxes
        Shape (boxes, 7 or more).
    margin
        Metres that every side is moved out.

    Examples
    --------
    >>> points_in_boxes(np.array([[1.9, 0, 0], [2.1, 0, 0]]), np.array([[0, 0, 0, 4, 2, 1, 0.0]])).tolist()
    [[True, False]]
    """
    found = np.zeros((len(boxes), len(points)), dtype=bool)
    x, y = (np.ascontiguousarray(points[:, axis]) for axis in (0, 1))
    for i, box in enumerate(np.asarray(boxes, dtype=np.float64)):
        # the sphere around the box leaves few points for the exact test
        reach = 0.5 * np.linalg.norm(box[3:6]) + 2 * margin
        near = np.flatnonzero((np.abs(x - box[0]) <= reach) & (np.abs(y - box[1]) <= reach))
        away = points[near, :3] - box[:3]
        c, s = np.cos(box[6]), np.sin(box[6])
        local = np.stack([c * away[:, 0] + s * away[:, 1], c * away[:, 1] - s * away[:, 0], away[:, 2]], 1)
        found[i, near] = (np.abs(local) <= box[3:6] / 2 + margin).all(1)
    return found


def turned(boxes: Floats, angle: float) -> Floats:
    """Boxes after a turn of the world about z, anticlockwise, in radians.

    Examples
    --------
    >>> turned(np.array([[1, 0, 0, 4, 2, 1, 0.0]]), np.pi / 2)[0].round(3).tolist()
    [0.0, 1.0, 0.0, 4.0, 2.0, 1.0, 1.571]
    """
    out = np.array(boxes, dtype=np.float64)
    c, s = np.cos(angle), np.sin(angle)
    out[:, 0], out[:, 1] = c * boxes[:, 0] - s * boxes[:, 1], s * boxes[:, 0] + c * boxes[:, 1]
    out[:, 6] = limit_angle(out[:, 6] + angle)
    return out
