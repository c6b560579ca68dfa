"""Simulated scans: a spinning sensor in made-up streets. What comes out of here is called simulated everywhere."""

from fewer.tasks.detect3d.simulator.sensor import SENSORS, Sensor
from fewer.tasks.detect3d.simulator.write import Streets

__all__ = ["SENSORS", "Sensor", "Streets"]
