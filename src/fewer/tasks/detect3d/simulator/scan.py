"""Cast the beams of a sensor into a scene: the nearest hit counts, and what it hides is counted too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.detect3d.simulator.sensor import Sensor
from fewer.tasks.detect3d.simulator.shapes import Shape
from fewer.tasks.detect3d.simulator.streets import Scene

__all__ = ["Scan", "scan"]


@dataclass(frozen=True, eq=False)
class Scan:
    """Simulated returns.

    Attributes
    ----------
    points
        float32, shape (points, 4): x, y, z, intensity.
    owner
        Object of each point, -1 for the scenery.
    ring
        Beam of each point.
    seen, wholly
        Beams that hit each object, and that would hit it if nothing stood before it.
    """

    points: Floats
    owner: np.ndarray
    ring: np.ndarray
    seen: np.ndarray
    wholly: np.ndarray

    def occlusion(self) -> np.ndarray:
        """KITTI's levels of each object: 0 visible, 1 partly hidden, 2 mostly hidden.

        The levels of KITTI are human judgements; here they are cut at 80 % and 40 % of the beams.
        """
        share = self.seen / np.maximum(self.wholly, 1)
        return np.where(share >= 0.8, 0, np.where(share >= 0.4, 1, 2))


def scan(scene: Scene, sensor: Sensor, rng: np.random.Generator) -> Scan:
    """One turn of the sensor.

    Examples
    --------
    >>> from fewer.tasks.detect3d.simulator.sensor import SENSORS
    >>> from fewer.tasks.detect3d.simulator.streets import make_scene
    >>> rng = np.random.default_rng(0)
    >>> made = scan(make_scene(rng, 1.73), SENSORS["hdl-64"].thinned(4), rng)
    >>> made.points.shape[1], bool((made.seen <= made.wholly).all())
    (4, True)
    """
    rays = sensor.directions()
    distance, cosine = scene.ground.cast(rays)
    albedo = np.full(distance.shape, 0.22) + 0.05 * rng.normal(size=distance.shape)
    owner = np.full(distance.shape, -1)
    hidden: dict[int, np.ndarray] = {}
    for shape in scene.shapes:
        window = _window(shape, sensor)
        if window is None or not len(window):
            continue
        found, angle = shape.cast(rays[:, window], rng)
        hit = np.isfinite(found)
        if shape.owner >= 0:
            mask = hidden.setdefault(shape.owner, np.zeros(distance.shape, dtype=bool))
            mask[:, window] |= hit
        nearer = hit & (found < distance[:, window])
        for old, new in ((distance, found), (cosine, angle)):
            old[:, window] = np.where(nearer, new, old[:, window])
        albedo[:, window] = np.where(nearer, shape.albedo, albedo[:, window])
        owner[:, window] = np.where(nearer, shape.owner, owner[:, window])
    reached = np.isfinite(distance) & (distance < sensor.reach) & (distance > 1.0)
    kept = reached & ~sensor.lost(np.where(reached, distance, 0), cosine, rng)
    noisy = distance + sensor.noise * rng.normal(size=distance.shape)
    strength = albedo * (0.35 + 0.65 * cosine) + 0.03 * rng.normal(size=distance.shape)
    points = np.concatenate([rays[kept] * noisy[kept][:, None], strength[kept].clip(0, 1)[:, None]], 1)
    count = len(scene.boxes)
    wholly = np.array(
        [int((hidden[i] & (sensor.reach > 0)).sum()) if i in hidden else 0 for i in range(count)], dtype=int
    )
    seen = np.bincount(owner[reached & (owner >= 0)], minlength=count)[:count]
    rings = np.broadcast_to(np.arange(len(rays))[:, None], distance.shape)
    return Scan(points.astype(np.float32), owner[kept], rings[kept], np.minimum(seen, wholly), wholly)


def _window(shape: Shape, sensor: Sensor) -> np.ndarray | None:
    """Shots that can hit a shape: those towards the circle around it."""
    x, y, _ = shape.centre
    away, reach = np.hypot(x, y), np.hypot(shape.size[0], shape.size[1]) / 2
    turns = sensor.azimuths
    if away - reach > sensor.reach:
        return None
    if away <= reach:
        return np.arange(len(turns))
    half = np.arcsin(reach / away) + np.deg2rad(sensor.step)
    apart = np.abs((turns - np.arctan2(y, x) + np.pi) % (2 * np.pi) - np.pi)
    return np.flatnonzero(apart <= half)
