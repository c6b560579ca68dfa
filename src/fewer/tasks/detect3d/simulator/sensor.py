"""Spinning sensors: the elevation of every beam, the step of the spin, and what their returns suffer from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewer.tasks.detect3d.boxes import Floats

__all__ = ["SENSORS", "Sensor"]


@dataclass(frozen=True)
class Sensor:
    """A spinning scanner.

    Attributes
    ----------
    elevations
        Of the beams, degrees above the horizon, from the highest to the lowest.
    step
        Degrees between two shots of a beam.
    height
        Of the sensor above the road, metres.
    reach
        Farthest return, metres.
    noise
        Standard deviation of the range, metres.
    dropout
        Share of the returns that is lost at the foot of the sensor; it grows with the distance.
    sweep
        Degrees of azimuth that are simulated, from right to left; 0 is straight ahead.

    Examples
    --------
    >>> SENSORS["hdl-64"].directions().shape
    (64, 2083, 3)
    """

    elevations: tuple[float, ...]
    step: float
    height: float
    reach: float = 80.0
    noise: float = 0.02
    dropout: float = 0.04
    sweep: tuple[float, float] = (-180.0, 180.0)

    @property
    def azimuths(self) -> Floats:
        """Radians of the shots of one beam."""
        count = int((self.sweep[1] - self.sweep[0]) / self.step)
        return np.deg2rad(self.sweep[0] + self.step * np.arange(count))

    def directions(self) -> Floats:
        """Unit vectors, shape (beams, shots, 3)."""
        up, turn = np.deg2rad(np.array(self.elevations))[:, None], self.azimuths[None]
        flat = np.cos(up)
        parts = np.broadcast_arrays(flat * np.cos(turn), flat * np.sin(turn), np.sin(up))
        return np.stack(parts, -1)

    def ahead(self, half: float = 45.0) -> Sensor:
        """The same sensor, simulated only to both sides of straight ahead, in degrees."""
        return replace(self, sweep=(-half, half))

    def thinned(self, every: int) -> Sensor:
        """With every n-th beam and a step n times as wide: a smaller scan of the same scene."""
        return replace(self, elevations=self.elevations[::every], step=self.step * every)

    def lost(self, distance: Floats, grazing: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Which returns are lost: more of them far away and where the beam grazes the surface.

        Parameters
        ----------
        distance
            Metres.
        grazing
            Cosine between the beam and the surface's normal.
        """
        chance = self.dropout + 0.25 * (distance / self.reach) ** 2 + 0.5 * np.exp(-np.abs(grazing) / 0.03)
        return rng.random(distance.shape) < chance


def _hdl64() -> tuple[float, ...]:
    # the upper block has a third of a degree between beams, the lower one half a degree
    return (*(2.0 - i / 3 for i in range(32)), *(-8.83 - i / 2 for i in range(32)))


SENSORS: dict[str, Sensor] = {
    "hdl-64": Sensor(_hdl64(), 0.1728, 1.73),
    "hdl-32": Sensor(tuple(10.67 - i * 4 / 3 for i in range(32)), 0.3312, 1.84, reach=70.0),
}
"""The 64-beam sensor of KITTI and the 32-beam sensor of nuScenes, from their makers' nominal tables."""
