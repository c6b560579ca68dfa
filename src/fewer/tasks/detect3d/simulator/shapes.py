"""Shapes that beams hit: boxes, cylinders, ellipsoids, foliage and the ground; each casts many rays at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewer.tasks.detect3d.boxes import Floats

__all__ = ["Ground", "Hits", "Shape"]

Hits = tuple[Floats, Floats]
"""Distance along each ray (infinite where it misses) and the cosine between ray and surface normal."""


@dataclass(frozen=True)
class Shape:
    """One solid.

    Attributes
    ----------
    kind
        ``box``; ``wheel`` (a cylinder about its own y), ``post`` (a cylinder about z), ``ball`` (an ellipsoid), or
        ``foliage`` (an ellipsoid that returns beams from random depths).
    centre, size
        Metres; of wheels, posts and balls the sizes of the box around them.
    yaw
        Radians about z.
    albedo
        Intensity of a return at a right angle, 0 to 1.
    owner
        Number of the object that it belongs to; -1 for the scenery.
    """

    kind: Literal["box", "wheel", "post", "ball", "foliage"]
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float = 0.0
    albedo: float = 0.3
    owner: int = -1

    def cast(self, directions: Floats, rng: np.random.Generator) -> Hits:
        """Cast rays from the origin.

        Parameters
        ----------
        directions
            Unit vectors, shape (..., 3).

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> [float(v) for v in Shape("box", (5, 0, 0), (2, 2, 2)).cast(np.array([1.0, 0, 0]), rng)]
        [4.0, 1.0]
        """
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
        origin, rays = -turn @ np.array(self.centre), directions @ turn.T
        half = np.array(self.size) / 2
        if self.kind == "box":
            return _box(origin, rays, half)
        # in units of the half sizes all round shapes are a unit ball or a unit cylinder
        axis = {"wheel": 1, "post": 2}.get(self.kind)
        near, far, normal = _round(origin / half, rays / half, axis)
        if self.kind == "foliage":
            depth = rng.exponential(0.35 * float(half.mean()), near.shape)
            inside = np.maximum(near, 0) + depth
            return np.where(inside < far, inside, np.inf), np.full(near.shape, 0.5)
        steep = normal / half
        steep /= np.maximum(np.linalg.norm(steep, axis=-1, keepdims=True), 1e-12)
        return np.where(near > 0, near, np.inf), np.abs((steep * rays).sum(-1))


def _box(origin: Floats, rays: Floats, half: Floats) -> Hits:
    with np.errstate(divide="ignore", invalid="ignore"):
        safe = np.where(np.abs(rays) < 1e-12, 1e-12, rays)
        one, two = (-half - origin) / safe, (half - origin) / safe
    low, high = np.minimum(one, two), np.maximum(one, two)
    near, far = low.max(-1), high.min(-1)
    axis = low.argmax(-1)
    cosine = np.abs(np.take_along_axis(rays, axis[..., None], -1)[..., 0])
    return np.where((near <= far) & (near > 0), near, np.inf), cosine


def _round(origin: Floats, rays: Floats, axis: int | None) -> tuple[Floats, Floats, Floats]:
    """Entry, exit and outward normal on the unit ball (no axis) or the unit cylinder about an axis."""
    across = [i for i in range(3) if i != axis]
    o, d = origin[across], rays[..., across]
    a, b, c = (d * d).sum(-1), (d * o).sum(-1), float((o * o).sum()) - 1
    inner = b * b - a * c
    root = np.sqrt(np.maximum(inner, 0))
    a = np.maximum(a, 1e-12)
    near, far = (-b - root) / a, (-b + root) / a
    side = np.ones(near.shape, dtype=bool)
    if axis is not None:
        along = np.where(np.abs(rays[..., axis]) < 1e-12, 1e-12, rays[..., axis])
        one, two = (-1 - origin[axis]) / along, (1 - origin[axis]) / along
        cap = np.minimum(one, two)
        side = near >= cap
        near, far = np.maximum(near, cap), np.minimum(far, np.maximum(one, two))
    hit = (inner > 0) & (near <= far)
    at = origin + np.where(hit, near, 0)[..., None] * rays
    normal = np.zeros(rays.shape)
    normal[..., across] = np.where(side[..., None], at[..., across], 0)
    if axis is not None:
        normal[..., axis] = np.where(side, 0, np.sign(at[..., axis]))
    return np.where(hit, near, np.inf), np.where(hit, far, -np.inf), normal


@dataclass(frozen=True)
class Ground:
    """An uneven road: a slope and a few waves.

    Attributes
    ----------
    level
        Height under the sensor, metres (negative).
    slope
        Rise per metre along x and y.
    waves
        Rows of amplitude (m), wave numbers along x and y (rad/m), phase.
    """

    level: float
    slope: tuple[float, float]
    waves: tuple[tuple[float, float, float, float], ...]

    def height(self, x: Floats, y: Floats) -> Floats:
        """Metres in the frame of the sensor."""
        rise = self.level + self.slope[0] * np.asarray(x) + self.slope[1] * np.asarray(y)
        for amplitude, kx, ky, phase in self.waves:
            rise = rise + amplitude * (np.sin(kx * x + ky * y + phase) - np.sin(phase))
        return rise

    def cast(self, directions: Floats) -> Hits:
        """Cast rays: the flat road first, then a few corrections; the slopes are small, so that they converge.

        Examples
        --------
        >>> flat = Ground(-1.0, (0.0, 0.0), ())
        >>> [round(float(v), 3) for v in flat.cast(np.array([0.6, 0.0, -0.8]))]
        [1.25, 0.8]
        """
        down = directions[..., 2]
        falls = down < -1e-4
        safe = np.where(falls, down, -1.0)
        distance = self.level / safe
        for _ in range(6):
            level = self.height(distance * directions[..., 0], distance * directions[..., 1])
            distance = np.clip(level / safe, 0, 500)
        return np.where(falls & (distance > 0), distance, np.inf), np.abs(down)
