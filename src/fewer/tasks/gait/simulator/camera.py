"""From round cones in space to silhouettes: perspective, and a fill by scan lines."""

from __future__ import annotations

import numpy as np

from fewer.tasks.gait.simulator.body import Capsules

__all__ = ["render"]

_DISCS = 7
SIDE, WIDE = 64, 128


def _project(points: np.ndarray, view: float, distance: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Image places (right, up) and depths of points, of a camera that looks level at the walker.

    View 0 sees the walker from ahead, 90 from the side, 180 from behind, as CASIA-B counts.
    """
    angle = np.deg2rad(view)
    ahead = np.array([np.cos(angle), np.sin(angle), 0.0])
    right = np.array([-np.sin(angle), np.cos(angle), 0.0])
    depth = distance - points @ ahead
    return np.stack([points @ right, points[..., 2] - height], -1) / depth[..., None], depth


def render(body: Capsules, view: float, path: np.ndarray, *, distance: float = 5.0, height: float = 1.2) -> np.ndarray:
    """Silhouettes of a walker, scaled and centred as the field prepares them.

    Every cone is filled line by line: a line meets the discs along it in one interval.

    Parameters
    ----------
    body
        Of every frame.
    view
        Degrees.
    path
        How far the walker has come, in metres from the middle, for every frame: nearer means larger, and seen a little
        from another side.
    distance, height
        Of the camera, metres.

    Returns
    -------
    ndarray
        uint8 (frames, 64, 64), 0 or 255.
    """
    moved = np.stack([path, 0 * path, 0 * path], 1)[:, None]
    share = np.linspace(0, 1, _DISCS)[:, None]
    first, last = (body.first + moved)[:, :, None], (body.last + moved)[:, :, None]
    centres = first * (1 - share) + last * share
    radii = body.first_radius[:, None] * (1 - share[:, 0]) + body.last_radius[:, None] * share[:, 0]
    places, depth = _project(centres, view, distance, height)
    radii = radii[None] / depth
    frames = len(places)
    # the body fills 64 lines, whatever its distance
    top = (places[..., 1] + radii).reshape(frames, -1).max(1)
    bottom = (places[..., 1] - radii).reshape(frames, -1).min(1)
    scale = SIDE / (top - bottom)
    x = places[..., 0] * scale[:, None, None]
    y = (top[:, None, None] - places[..., 1]) * scale[:, None, None]
    r = radii * scale[:, None, None]
    x = x - x.reshape(frames, -1).mean(1)[:, None, None] + WIDE / 2
    canvas = np.zeros((frames, SIDE, WIDE), bool)
    lines, columns = np.arange(SIDE) + 0.5, np.arange(WIDE) + 0.5
    for part in range(x.shape[1]):
        off = lines[None, :, None] - y[:, part, None, :]
        half = np.sqrt(np.maximum(r[:, part, None, :] ** 2 - off**2, -1.0), where=r[:, part, None, :] > np.abs(off),
                       out=np.full(off.shape, -np.inf))  # fmt: skip
        low, high = (x[:, part, None, :] - half).min(2), (x[:, part, None, :] + half).max(2)
        canvas |= (columns >= low[:, :, None]) & (columns <= high[:, :, None])
    return _centred(canvas)


def _centred(canvas: np.ndarray) -> np.ndarray:
    """Cut 64 columns around the one that halves the mass."""
    mass = canvas.sum(1).cumsum(1)
    middle = (mass > mass[:, -1:] / 2).argmax(1)
    start = np.clip(middle - SIDE // 2, 0, WIDE - SIDE)
    index = start[:, None, None] + np.arange(SIDE)[None, None, :]
    return np.take_along_axis(canvas, np.broadcast_to(index, (len(canvas), SIDE, SIDE)), 2).astype(np.uint8) * 255
