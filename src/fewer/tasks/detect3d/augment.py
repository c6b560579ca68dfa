"""Changes of a scan that keep its labels true: objects of other scans set in, flips, turns, scales."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from fewer.tasks.detect3d.boxes import Floats, limit_angle, points_in_boxes, turned
from fewer.tasks.detect3d.frames import Frame, Objects
from fewer.tasks.detect3d.overlap import bev_iou

__all__ = ["ObjectBank", "augmented", "only"]

_LEAST = 5
"""Points of an object that is worth setting in."""


@dataclass
class ObjectBank:
    """Objects cut out of annotated scans, with their points, by class (SECOND, section 3.2.1).

    Examples
    --------
    >>> bank = ObjectBank()
    >>> points = np.zeros((9, 4), np.float32)
    >>> bank.add(Frame("a", points, Objects(np.array([[0, 0, 0, 1, 1, 1, 0.0]]), ("Car",))))
    >>> {name: len(found) for name, found in bank.found.items()}
    {'Car': 1}
    """

    found: dict[str, list[tuple[Floats, Floats]]] = field(default_factory=dict)

    @classmethod
    def of(cls, frames: Iterable[Frame], classes: Iterable[str]) -> ObjectBank:
        """All objects of some classes."""
        bank, wanted = cls(), list(classes)
        for frame in frames:
            bank.add(replace(frame, objects=frame.objects.of(wanted)))
        return bank

    def add(self, frame: Frame) -> None:
        """Cut the objects out of a scan."""
        inside = points_in_boxes(frame.points, frame.objects.boxes)
        for box, name, mask in zip(frame.objects.boxes, frame.objects.classes, inside, strict=True):
            if mask.sum() >= _LEAST:
                self.found.setdefault(name, []).append((box.copy(), frame.points[mask]))

    def set_in(self, frame: Frame, counts: dict[str, int], rng: np.random.Generator) -> Frame:
        """Add objects until there are so many of each class; whoever would stand in another one is left out.

        They stand where they stood in their own scan: their points are those of that distance and side. What they
        would hide is not removed.
        """
        objects, points = frame.objects, frame.points
        boxes, classes, fresh = [*objects.boxes], list(objects.classes), []
        for name, count in counts.items():
            bank = self.found.get(name, [])
            for at in rng.permutation(len(bank))[: max(0, count - classes.count(name))]:
                box, own = bank[at]
                if boxes and bev_iou(box[None], np.array(boxes)).max() > 0:
                    continue
                boxes.append(box)
                classes.append(name)
                fresh.append((box, own))
        if not fresh:
            return frame
        inside = points_in_boxes(points, np.array([box for box, _ in fresh])).any(0)
        whole = np.concatenate([points[~inside], *(_of_width(own, points.shape[1]) for _, own in fresh)])
        return replace(frame, points=whole, objects=Objects(np.array(boxes), tuple(classes)))


def _of_width(points: Floats, columns: int) -> Floats:
    """Points with so many values each: further ones are left out, and missing ones (a ring, an age) are 0."""
    missing = columns - points.shape[1]
    return np.pad(points, ((0, 0), (0, missing))) if missing > 0 else points[:, :columns]


def only(frame: Frame, classes: tuple[str, ...], reach: tuple[float, ...], least: int = 1) -> Frame:
    """The scan with the objects that a network can learn: of its classes, in its reach, with enough points."""
    objects = frame.objects.of(classes)
    low, high = np.array(reach[:3]), np.array(reach[3:])
    inside = ((objects.boxes[:, :2] >= low[:2]) & (objects.boxes[:, :2] < high[:2])).all(1)
    enough = points_in_boxes(frame.points, objects.boxes).sum(1) >= least
    return replace(frame, objects=objects.take(inside & enough))


def augmented(
    frame: Frame, rng: np.random.Generator, turn: float = 0.785, scale: float = 0.05, shine: float = 0.0
) -> Frame:
    """Flip left and right, turn about the sensor, scale and brighten, all of it at random.

    Parameters
    ----------
    turn
        Largest angle in radians.
    scale
        Largest change of the size.
    shine
        Largest change of the intensities: the logarithm of a factor for all points of the scan.

    Examples
    --------
    >>> frame = Frame("a", np.ones((1, 4), np.float32))
    >>> augmented(frame, np.random.default_rng(0)).points.shape
    (1, 4)
    """
    points, boxes = frame.points.copy(), np.array(frame.objects.boxes, dtype=np.float64)
    if rng.random() < 0.5:
        points[:, 1] *= -1
        boxes[:, 1] *= -1
        boxes[:, 6] = limit_angle(-boxes[:, 6])
    angle, factor = rng.uniform(-turn, turn), 1 + rng.uniform(-scale, scale)
    c, s = np.cos(angle), np.sin(angle)
    x, y = points[:, 0].copy(), points[:, 1].copy()
    points[:, 0], points[:, 1] = c * x - s * y, s * x + c * y
    points[:, :3] *= factor
    boxes = turned(boxes, angle)
    boxes[:, :6] *= factor
    if shine > 0 and points.shape[1] > 3:
        points[:, 3] = np.minimum(points[:, 3] * np.exp(rng.uniform(-shine, shine)), 1)
    return replace(frame, points=points, objects=Objects(boxes, frame.objects.classes))
