"""Bodies of road users as a few solids each, stretched to fill their box exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewer.tasks.detect3d.simulator.shapes import Shape

__all__ = ["KINDS", "Kind", "body"]

# a part: kind, centre and size in units of the box (-0.5 to 0.5 along each axis), albedo times that of the paint
_Part = tuple[str, tuple[float, float, float], tuple[float, float, float], float]

_WHEELS: tuple[_Part, ...] = tuple(
    ("wheel", (x, y, -0.29), (0.165, 0.12, 0.42), 0.25) for x in (-0.31, 0.31) for y in (-0.42, 0.42)
)


def _car(hood: float, boot: float, roof: float) -> tuple[_Part, ...]:
    """A body of lower part, windows and roof; ``hood`` and ``boot`` are the shares of the length without a cabin."""
    start, stop = -0.5 + boot, 0.5 - hood
    middle, length = (start + stop) / 2, stop - start
    return (
        ("box", (0, 0, -0.16), (1.0, 1.0, 0.36), 1.0),
        ("box", (middle, 0, 0.14), (length, 0.92, 0.24), 0.35),
        ("box", (middle - 0.02, 0, 0.32), (length * 0.88, 0.84, 0.12), 0.35),
        ("box", (middle - 0.03, 0, 0.5 - roof / 2), (length * 0.74, 0.78, roof), 1.0),
        ("box", (0.47, 0, -0.24), (0.06, 0.9, 0.1), 2.2),  # the plate and lamps throw much back
        *_WHEELS,
    )


_PERSON: tuple[_Part, ...] = (
    ("post", (0, 0, 0.1), (0.42, 0.72, 0.42), 1.0),
    ("ball", (0.02, 0, 0.41), (0.26, 0.32, 0.18), 0.8),
    ("post", (0.28, 0.16, -0.3), (0.24, 0.24, 0.4), 0.8),
    ("post", (-0.28, -0.16, -0.3), (0.24, 0.24, 0.4), 0.8),
    ("box", (0.34, 0.44, 0.05), (0.32, 0.12, 0.3), 0.9),
    ("box", (-0.34, -0.44, 0.05), (0.32, 0.12, 0.3), 0.9),
)

_CYCLIST: tuple[_Part, ...] = (
    ("wheel", (0.31, 0, -0.31), (0.38, 0.12, 0.38), 0.4),
    ("wheel", (-0.31, 0, -0.31), (0.38, 0.12, 0.38), 0.4),
    ("box", (0, 0, -0.18), (0.5, 0.12, 0.08), 1.2),
    ("box", (0.3, 0, 0.04), (0.08, 1.0, 0.06), 1.0),
    ("ball", (-0.06, 0, 0.16), (0.34, 0.72, 0.44), 1.0),
    ("ball", (0.06, 0, 0.42), (0.14, 0.32, 0.16), 0.8),
    ("box", (-0.02, 0.25, -0.12), (0.16, 0.22, 0.34), 0.8),
    ("box", (0.02, -0.25, -0.12), (0.16, 0.22, 0.34), 0.8),
)


@dataclass(frozen=True)
class Kind:
    """Road users of one kind.

    Attributes
    ----------
    name
        Class in the labels.
    parts
        Solids in units of the box.
    size, spread
        Mean and standard deviation of length, width, height, metres.
    albedo
        Range of the paint's or clothes' intensity.
    """

    name: str
    parts: tuple[_Part, ...]
    size: tuple[float, float, float]
    spread: tuple[float, float, float]
    albedo: tuple[float, float] = (0.12, 0.6)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Length, width, height of one of them."""
        return np.array(self.size) + np.array(self.spread) * rng.normal(size=3).clip(-2, 2)


KINDS: dict[str, Kind] = {
    "hatchback": Kind("Car", _car(0.24, 0.06, 0.1), (3.7, 1.62, 1.5), (0.25, 0.07, 0.06)),
    "sedan": Kind("Car", _car(0.26, 0.2, 0.1), (4.3, 1.7, 1.45), (0.25, 0.07, 0.06)),
    "wagon": Kind("Car", _car(0.26, 0.03, 0.1), (4.4, 1.7, 1.5), (0.2, 0.07, 0.06)),
    "suv": Kind("Car", _car(0.22, 0.04, 0.08), (4.3, 1.8, 1.7), (0.25, 0.07, 0.07)),
    "van": Kind(
        "Van",
        (("box", (-0.06, 0, 0.08), (0.88, 1, 0.84), 1.0), *_car(0.12, 0.0, 0.1)),
        (5.0, 1.9, 2.2),
        (0.4, 0.1, 0.2),
    ),
    "person": Kind("Pedestrian", _PERSON, (0.84, 0.66, 1.75), (0.15, 0.08, 0.1)),
    "cyclist": Kind("Cyclist", _CYCLIST, (1.76, 0.6, 1.73), (0.1, 0.06, 0.08)),
}


def body(kind: Kind, box: Sequence[float], owner: int, rng: np.random.Generator) -> list[Shape]:
    """The solids of one road user.

    Parameters
    ----------
    kind
        What it is.
    box
        ``x y z length width height yaw``.
    owner
        Number of the object.

    Examples
    --------
    >>> parts = body(KINDS["sedan"], [10, 0, 0, 4.3, 1.7, 1.45, 0.0], 0, np.random.default_rng(0))
    >>> len(parts), {part.owner for part in parts}
    (9, {0})
    """
    paint = rng.uniform(*kind.albedo)
    size, c, s = np.array(box[3:6]), np.cos(box[6]), np.sin(box[6])
    shapes = []
    for name, centre, extent, shade in kind.parts:
        x, y, z = np.array(centre) * size
        place = (float(box[0] + c * x - s * y), float(box[1] + s * x + c * y), float(box[2] + z))
        lengths = tuple(float(v) for v in np.array(extent) * size)
        shapes.append(Shape(name, place, lengths, box[6], float(min(1.0, paint * shade)), owner))  # type: ignore[arg-type]
    return shapes
