"""Which part of a scan a detector looks at: as it was asked for, or where the labelled objects stand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewer.core.errors import FewerError
from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.detect3d.networks.config import DetectorConfig

__all__ = ["Reach", "fitted_reach", "share_within", "with_field"]

Reach = tuple[float, float, float, float, float, float]

_FEW = 5
"""Objects below which nothing can be told about where objects stand."""
_BEHIND, _INSIDE = 0.1, 0.5
"""Share of objects behind the sensor from which a network looks all around, and the least share in a usual field."""
_ROOM, _BELOW, _ABOVE = 2.0, 1.0, 0.5
"""Metres beyond the outermost objects: to the sides, below and above."""
_MOST_CELLS = 4096
"""Along one side: a slip in the units of a range would take all memory."""


def share_within(boxes: Floats, reach: Sequence[float]) -> float:
    """Share of boxes whose centre lies in a field, seen from above and in height.

    Examples
    --------
    >>> share_within(np.array([[5.0, 0, 0, 4, 2, 1, 0], [-5, 0, 0, 4, 2, 1, 0]]), (0, -9, -3, 9, 9, 1))
    0.5
    """
    if not len(boxes):
        return 0.0
    low, high = np.array(reach[:3]), np.array(reach[3:])
    return float(((boxes[:, :3] >= low) & (boxes[:, :3] < high)).all(1).mean())


def fitted_reach(usual: Reach, boxes: Floats) -> Reach:
    """The usual field, or another one where most of the objects stand elsewhere.

    Scanners that turn all the way round have objects behind them, and some have their zero on the road and not at the
    sensor: the usual field would then miss them in silence.

    Parameters
    ----------
    usual
        ``x y z`` from and to, metres: ahead of a sensor 1.73 m above the road.
    boxes
        Labelled objects, shape (n, 7).

    Examples
    --------
    >>> around = np.array([[x, 3.0, 0.8, 4, 2, 1.6, 0] for x in (-20, -10, 10, 15, 20, 25)])
    >>> fitted_reach((0, -23, -3, 46, 23, 1), around)
    (-26.0, -26.0, -1.0, 26.0, 26.0, 3.0)
    """
    if len(boxes) < _FEW:
        return usual
    x0, y0, z0, x1, y1, z1 = usual
    centre, half = boxes[:, :3], boxes[:, 5] / 2
    ahead = ((centre[:, :2] >= (x0, y0)) & (centre[:, :2] < (x1, y1))).all(1).mean()
    if (centre[:, 0] < x0).mean() > _BEHIND:
        far = float(np.quantile(np.abs(centre[:, :2]).max(1), 0.95)) + _ROOM
        side = float(np.ceil(min(far, max(x1 - x0, y1 - y0))))
        x0, y0, x1, y1 = -side, -side, side, side
    elif ahead < _INSIDE:
        wide = float(np.ceil(np.quantile(np.abs(centre[:, 1]), 0.95) + _ROOM))
        x1, y0, y1 = float(np.ceil(np.quantile(centre[:, 0], 0.95) + _ROOM)), -wide, wide
    bottom, top = centre[:, 2] - half, centre[:, 2] + half
    usual_height = ((centre[:, 2] >= z0) & (centre[:, 2] < z1)).mean() >= 0.95 and np.median(bottom) - z0 < 2.5
    if not usual_height:
        z0 = float(np.floor(np.quantile(bottom, 0.05) - _BELOW))
        z1 = float(max(z0 + usual[5] - usual[2], np.ceil(np.quantile(top, 0.95) + _ABOVE)))
    return (x0, y0, z0, x1, y1, z1)


def with_field(config: DetectorConfig, reach: Reach | None, cell: float | None = None) -> DetectorConfig:
    """A configuration with another field or other cells; the field is widened to whole cells of all stages.

    Parameters
    ----------
    config
        Of a network.
    reach
        ``x y z`` from and to; None leaves it.
    cell
        Side of a cell from above, metres; None leaves it.

    Raises
    ------
    FewerError
        When the field would have more cells than any machine can hold.

    Examples
    --------
    >>> from fewer.tasks.detect3d.networks.config import small_config
    >>> with_field(small_config("second"), (-40, -40, -5, 40, 40, 3), 0.25).grid
    (320, 320, 40)
    """
    if reach is None and cell is None:
        return config
    x0, y0, z0, x1, y1, z1 = reach or config.reach
    side = cell or config.voxel[0]
    step = side * (8 if config.on_pillars else 16)
    (x0, x1), (y0, y1) = _whole(x0, x1, step), _whole(y0, y1, step)
    most = max(x1 - x0, y1 - y0) / side
    if most > _MOST_CELLS:
        raise FewerError(
            f"a field of {x1 - x0:g} x {y1 - y0:g} m has {most:.0f} cells of {side:g} m along one side, more than "
            f"{_MOST_CELLS}; give a smaller --reach or a larger --cell, in metres"
        )
    levels = 1 if config.on_pillars else config.grid[2]
    voxel = (side, side, (z1 - z0) / levels)
    return config.model_copy(update={"reach": (x0, y0, z0, x1, y1, z1), "voxel": voxel})


def _whole(start: float, stop: float, step: float) -> tuple[float, float]:
    """A range widened to whole steps: at its far end where it starts at the sensor, else at both ends alike."""
    length = max(1, int(np.ceil((stop - start) / step - 1e-6))) * step
    if start == 0:
        return start, round(length, 6)
    middle = (start + stop) / 2
    return round(middle - length / 2, 6), round(middle + length / 2, 6)
