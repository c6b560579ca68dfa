"""Bird's-eye views: points, annotated boxes and those of one or two detectors, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewer.tasks.detect3d.boxes import Floats, bev_corners
from fewer.tasks.detect3d.frames import Objects

__all__ = ["bird_view", "side_by_side"]

TRUTH, FOUND, OTHER = (245, 245, 245), (80, 200, 120), (240, 150, 50)
_GROUND = (18, 20, 26)


def bird_view(
    points: Floats,
    layers: Sequence[tuple[Objects, tuple[int, int, int]]],
    reach: Sequence[float],
    *,
    side: int = 420,
) -> np.ndarray:
    """A scan from above, the sensor at the bottom, with boxes; a line marks the front of each.

    Parameters
    ----------
    points
        Shape (points, 3 or more).
    layers
        Objects and the colour of each set, the first ones below the others.
    reach
        ``x y z`` from and to of what is shown.
    side
        Pixels along the longer side.

    Returns
    -------
    array
        uint8, shape (height, width, 3).

    Examples
    --------
    >>> bird_view(np.ones((1, 4)), [], (0, -10, -3, 20, 10, 1), side=40).shape
    (40, 40, 3)
    """
    from PIL import Image, ImageDraw

    x0, y0, x1, y1 = reach[0], reach[1], reach[3], reach[4]
    scale = side / max(x1 - x0, y1 - y0)
    height, width = round((x1 - x0) * scale), round((y1 - y0) * scale)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = _GROUND
    rows = ((x1 - points[:, 0]) * scale).astype(int)
    columns = ((y1 - points[:, 1]) * scale).astype(int)
    good = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    tall = np.clip((points[good, 2] + 2.5) / 3, 0, 1)[:, None]
    image[rows[good], columns[good]] = (60 + 90 * tall * np.array([1.0, 1.05, 1.2])).astype(np.uint8)
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)

    def place(xy: Floats) -> tuple[float, float]:
        return (float((y1 - xy[1]) * scale), float((x1 - xy[0]) * scale))

    for objects, colour in layers:
        real = objects.boxes[~np.isnan(objects.boxes).any(1)] if len(objects) else objects.boxes
        for box, corners in zip(real, bev_corners(real), strict=True):
            draw.polygon([place(c) for c in corners], outline=colour)
            front = (corners[0] + corners[3]) / 2
            draw.line([place(box[:2]), place(front)], fill=colour)
    return np.asarray(picture)


def side_by_side(pictures: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Pictures of one height beside each other.

    Examples
    --------
    >>> side_by_side([np.zeros((2, 3, 3), np.uint8)] * 2, gap=1).shape
    (2, 7, 3)
    """
    white = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    parts: list[np.ndarray] = []
    for picture in pictures:
        parts += [picture, white]
    return np.concatenate(parts[:-1], 1)
