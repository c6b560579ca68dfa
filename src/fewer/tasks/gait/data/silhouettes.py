"""From masks to silhouettes of 64 x 64 pixels, as the field prepares them.

The steps are those that GaitSet introduced and OpenGait keeps: rows without the body are cut off, the height becomes 64
pixels, and 64 columns are cut around the column that halves the mass. The cubic resampling of OpenCV is done here in
double precision, so that no package is needed: of 3.4 million pixels, 34 differed from those of OpenCV 4.10 and 5.0 on
x86 processors, by one grey level of 255.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

__all__ = ["INVERTED", "SIZE", "fills_height", "is_inverted", "resize_cubic", "treat_frame", "treat_frames"]

SIZE = 64
LEAST_MASS = 10_000
"""A frame whose pixels sum up to no more than this is empty."""

_BRIGHT = 0.6
"""Share of a silhouette's picture that no body fills."""
_TALL = 0.75
"""Share of the height that a body fills once rows without it are cut off, whatever the segmentation has missed."""
INVERTED = "the background is bright and the person dark; invert the masks"

_WIDEST = 64
"""A picture that is so many times as wide as the body is high shows a line, not a person."""

_A = -0.75
"""Of the cubic kernel, as OpenCV has it."""


def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and weights of the four source pixels of every target pixel, edges repeated."""
    places = (np.arange(target) + 0.5) * (source / target) - 0.5
    base = np.floor(places).astype(int)
    t = places - base
    first = ((_A * (t + 1) - 5 * _A) * (t + 1) + 8 * _A) * (t + 1) - 4 * _A
    second = ((_A + 2) * t - (_A + 3)) * t * t + 1
    rest = 1 - t
    third = ((_A + 2) * rest - (_A + 3)) * rest * rest + 1
    weights = np.stack([first, second, third, 1 - first - second - third], 1)
    return np.clip(base[:, None] + np.arange(-1, 3), 0, source - 1), weights


def is_inverted(frames: np.ndarray) -> bool:
    """Whether silhouettes (frames, height, width) are bright where nobody is.

    Examples
    --------
    >>> frames = np.zeros((1, 64, 64), np.uint8)
    >>> frames[:, :, 20:40] = 255
    >>> is_inverted(frames), is_inverted(255 - frames)
    (False, True)
    """
    return len(frames) > 0 and bool((frames > 127).mean() > _BRIGHT)


def fills_height(frames: np.ndarray) -> bool:
    """Whether the rows of masks (frames, height, width) were cut to the body, as those of silhouettes are.

    A small mask of a whole picture may have the size of a silhouette; its person stands somewhere in it. Sequences
    without a person are taken for silhouettes.

    Examples
    --------
    >>> frames = np.zeros((3, 64, 64), np.uint8)
    >>> frames[:, 2:, 20:40] = 255
    >>> fills_height(frames), fills_height(np.pad(frames, ((0, 0), (0, 64), (0, 0))))
    (True, False)
    """
    rows = frames.max(2) > 0
    rows = rows[rows.any(1)]
    if not len(rows):
        return True
    heights = rows.shape[1] - rows.argmax(1) - rows[:, ::-1].argmax(1)
    return bool(np.median(heights) > _TALL * rows.shape[1])


def resize_cubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a uint8 image as OpenCV's ``INTER_CUBIC`` does (no smoothing when it shrinks).

    Examples
    --------
    >>> resize_cubic(np.full((3, 3), 7, np.uint8), 2, 5).tolist()
    [[7, 7, 7, 7, 7], [7, 7, 7, 7, 7]]
    """
    if image.shape == (height, width):
        return image.copy()
    rows, row_weights = _taps(image.shape[0], height)
    columns, column_weights = _taps(image.shape[1], width)
    wide = (image.astype(np.float64)[:, columns] * column_weights).sum(2)
    found = (wide[rows] * row_weights[:, :, None]).sum(1)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def treat_frame(mask: np.ndarray, size: int = SIZE) -> np.ndarray | None:
    """One silhouette of a mask of a whole picture; None where there is nobody.

    Parameters
    ----------
    mask
        uint8 (height, width), the person 255.
    size
        Pixels of a side.

    Examples
    --------
    >>> mask = np.zeros((200, 150), np.uint8)
    >>> mask[20:180, 60:90] = 255
    >>> treat_frame(mask).shape, treat_frame(np.zeros((9, 9), np.uint8)) is None
    ((64, 64), True)
    """
    if int(mask.sum(dtype=np.int64)) <= LEAST_MASS:
        return None
    rows = np.flatnonzero(mask.sum(1, dtype=np.int64))
    body = mask[rows[0] : rows[-1] + 1]
    width = int(size * (body.shape[1] / body.shape[0]))
    if not 1 <= width <= _WIDEST * size:
        return None
    body = resize_cubic(body, size, width)
    mass = body.sum(0, dtype=np.int64).cumsum()
    beyond = np.flatnonzero(mass > mass[-1] / 2)
    # a centre in the very first column is no centre, as in the field's own script
    if not len(beyond) or beyond[0] == 0:
        return None
    left, right = int(beyond[0]) - size // 2, int(beyond[0]) + size // 2
    if left <= 0 or right >= body.shape[1]:
        body = np.pad(body, ((0, 0), (size // 2, size // 2)))
        left, right = left + size // 2, right + size // 2
    return body[:, left:right]


def treat_frames(masks: Iterable[np.ndarray], size: int = SIZE) -> tuple[np.ndarray, int]:
    """Silhouettes (frames, size, size) of masks in order, and how many empty frames were left out."""
    found, empty = [], 0
    for mask in masks:
        one = treat_frame(mask, size)
        if one is None:
            empty += 1
        else:
            found.append(one)
    return (np.stack(found) if found else np.zeros((0, size, size), np.uint8)), empty
