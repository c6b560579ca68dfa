"""Made-up streets: where the road, the houses, the trees and the road users of one scene stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewer.tasks.detect3d.boxes import Floats, limit_angle
from fewer.tasks.detect3d.overlap import bev_iou
from fewer.tasks.detect3d.simulator.bodies import KINDS, Kind, body
from fewer.tasks.detect3d.simulator.shapes import Ground, Shape

__all__ = ["Scene", "make_scene"]

_CARS = ("hatchback", "sedan", "wagon", "suv")


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that a beam can hit, and the boxes that are labelled.

    Attributes
    ----------
    ground
        The road.
    shapes
        Solids.
    boxes, classes
        Of the road users; ``Shape.owner`` counts them.
    """

    ground: Ground
    shapes: list[Shape]
    boxes: Floats
    classes: tuple[str, ...]


def make_scene(rng: np.random.Generator, height: float, density: float = 1.0) -> Scene:
    """A straight street, seen from a car on it.

    Parameters
    ----------
    rng
        Decides everything.
    height
        Of the sensor above the road, metres.
    density
        Factor on the number of road users.

    Examples
    --------
    >>> scene = make_scene(np.random.default_rng(0), 1.73)
    >>> len(scene.boxes) == len(scene.classes) > 0
    True
    """
    waves = tuple(
        (rng.uniform(0.01, 0.05), rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15), rng.uniform(0, 6.28))
        for _ in range(3)
    )
    ground = Ground(-height, (rng.normal(0, 0.006), rng.normal(0, 0.01)), waves)
    street = rng.normal(0, 0.12) if rng.random() < 0.8 else rng.uniform(-0.8, 0.8)
    half = rng.uniform(3.4, 5.5)
    placed = _road_users(rng, ground, street, half, density)
    shapes = _scenery(rng, ground, street, half)
    boxes, classes = [], []
    for kind, box in placed:
        shapes += body(kind, box.tolist(), len(boxes), rng)
        boxes.append(box)
        classes.append(kind.name)
    return Scene(ground, shapes, np.array(boxes).reshape(-1, 7), tuple(classes))


def _along(street: float, along: float, across: float) -> tuple[float, float]:
    c, s = np.cos(street), np.sin(street)
    return float(c * along - s * across), float(s * along + c * across)


def _road_users(
    rng: np.random.Generator, ground: Ground, street: float, half: float, density: float
) -> list[tuple[Kind, Floats]]:
    wanted: list[tuple[str, float, float, float]] = []  # kind, along, across, heading in the street's frame

    def car() -> str:
        return "van" if rng.random() < 0.08 else str(rng.choice(_CARS))

    for side in (-1, 1):
        if rng.random() < 0.85:  # a row of parked cars, with gaps
            at = rng.uniform(3, 12)
            while at < 70:
                if rng.random() < 0.6 * density:
                    heading = (0 if side < 0 else np.pi) + (np.pi if rng.random() < 0.15 else 0) + rng.normal(0, 0.04)
                    wanted.append((car(), at, side * (half + 1.2 + rng.normal(0, 0.12)), heading))
                at += rng.uniform(5.2, 7.5)
    for _ in range(rng.poisson(3 * density)):  # moving cars keep to the right
        side = rng.choice((-1, 1))
        wanted.append((car(), rng.uniform(6, 70), side * half / 2, (0 if side < 0 else np.pi) + rng.normal(0, 0.05)))
    if rng.random() < 0.4:  # a car that turns or crosses
        wanted.append((car(), rng.uniform(10, 45), rng.uniform(-half, half), rng.uniform(-np.pi, np.pi)))
    for _ in range(rng.poisson(3 * density)):
        side = rng.choice((-1, 1))
        wanted.append(
            ("person", rng.uniform(4, 45), side * rng.uniform(half + 2.6, half + 5), rng.uniform(-np.pi, np.pi))
        )
    for _ in range(rng.poisson(1.6 * density)):
        side = rng.choice((-1, 1))
        wanted.append(
            (
                "cyclist",
                rng.uniform(5, 50),
                side * rng.uniform(half - 1, half + 0.2),
                rng.normal(0, 0.15) + (0 if side < 0 else np.pi),
            )
        )
    return _stand(rng, ground, street, wanted)


def _stand(
    rng: np.random.Generator, ground: Ground, street: float, wanted: list[tuple[str, float, float, float]]
) -> list[tuple[Kind, Floats]]:
    """Put them on the ground, leaving out whoever would stand in another one."""
    placed: list[tuple[Kind, Floats]] = []
    rows = np.zeros((0, 7))
    for name, along, across, heading in wanted:
        kind = KINDS[name]
        size = kind.draw(rng)
        x, y = _along(street, along, across)
        z = float(ground.height(np.array(x), np.array(y))) + size[2] / 2
        box = np.array([x, y, z, *size, float(limit_angle(np.array(heading + street)))])
        room = box + np.array([0, 0, 0, 0.3, 0.3, 0, 0])
        if np.hypot(x, y) < 3.5 or (len(rows) and bev_iou(room[None], rows).max() > 0):
            continue
        rows = np.vstack([rows, box])
        placed.append((kind, box))
    return placed


def _scenery(rng: np.random.Generator, ground: Ground, street: float, half: float) -> list[Shape]:
    shapes: list[Shape] = []

    def put(
        kind: str, along: float, across: float, size: tuple[float, float, float], lift: float, albedo: float
    ) -> None:
        x, y = _along(street, along, across)
        base = float(ground.height(np.array(x), np.array(y)))
        shapes.append(Shape(kind, (x, y, base + lift + size[2] / 2), size, street, albedo))  # type: ignore[arg-type]

    for side in (-1, 1):
        edge, at = half + rng.uniform(5.5, 11), -20.0
        while at < 85:
            length = rng.uniform(6, 22)
            if rng.random() < 0.75:
                deep, back = rng.uniform(6, 12), rng.uniform(0, 2)
                put(
                    "box",
                    at + length / 2,
                    side * (edge + back + deep / 2),
                    (length, deep, rng.uniform(4, 14)),
                    -0.5,
                    rng.uniform(0.15, 0.5),
                )
            elif rng.random() < 0.6:  # a garden wall
                put(
                    "box",
                    at + length / 2,
                    side * edge,
                    (length, 0.25, rng.uniform(0.8, 2.0)),
                    -0.3,
                    rng.uniform(0.2, 0.5),
                )
            at += length + rng.uniform(0, 6)
        for _ in range(rng.poisson(4)):
            along, across = rng.uniform(3, 60), side * (half + rng.uniform(2.4, 3.2))
            tall, thick = rng.uniform(2.5, 8), rng.uniform(0.08, 0.25)
            put("post", along, across, (thick, thick, tall), -0.2, rng.uniform(0.2, 0.7))
            if rng.random() < 0.3:  # a sign, which throws much back
                put("box", along, across, (0.06, 0.6, 0.6), tall - 0.8, 0.95)
        for _ in range(rng.poisson(4)):  # trees
            along, across = rng.uniform(2, 65), side * (half + rng.uniform(3, 6))
            tall, wide = rng.uniform(1.5, 2.6), rng.uniform(2.5, 5)
            put("post", along, across, (0.3, 0.3, tall + 1), -0.2, 0.25)
            put("foliage", along, across, (wide, wide, rng.uniform(2.5, 5)), tall, 0.3)
        for _ in range(rng.poisson(3)):  # bushes and hedges, some of a car's size
            put(
                "foliage",
                rng.uniform(2, 60),
                side * (half + rng.uniform(3, 7)),
                tuple(rng.uniform(0.8, 4, 3) * [1, 1, 0.45]),
                -0.1,
                0.3,
            )
    return shapes
