"""Which way the axes of a scan run through the body, and scans turned so that they all lie the same way.

Scanners and converters store one and the same head with its axes in any order and direction. A network that learned
from scans of one kind sees the others rotated or mirrored. So scans with a place in space are turned, by whole voxels
and without interpolation, into the order that most scans of the training have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fewer.tasks.segment.picture import Picture

__all__ = ["axes_of", "most_common_axes", "order_of", "turn"]

LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
"""Left and right, back (posterior) and front (anterior), down (inferior) and up (superior)."""
AXIS = {letter: axis for axis, pair in enumerate(LETTERS) for letter in pair}
"""Of the body, that a letter stands for."""


def axes_of(picture: Picture) -> str:
    """Towards which side of the body each axis runs, such as ``RAS``; empty where a file names no place.

    An oblique axis counts as the one that it is nearest to, and no axis of the body is named twice.

    Examples
    --------
    >>> axes_of(Picture(np.zeros((1, 2, 2, 2)), (1.0,) * 3, np.diag([-1.0, -1, 1, 1])))
    'LPS'
    """
    if picture.affine is None:
        return ""
    columns = picture.affine[:3, :3] / np.maximum(np.linalg.norm(picture.affine[:3, :3], axis=0), 1e-12)
    found: dict[int, str] = {}
    taken: set[int] = set()
    for at in np.argsort(-np.abs(columns), axis=None, kind="stable").tolist():
        body, own = divmod(at, 3)
        if own not in found and body not in taken:
            found[own] = LETTERS[body][int(columns[body, own] > 0)]
            taken.add(body)
    return "".join(found[own] for own in range(len(picture.space)))


def most_common_axes(pictures: Sequence[Picture]) -> str | None:
    """What :func:`axes_of` says of most pictures, the first of equal ones; None where none names a place.

    Examples
    --------
    >>> most_common_axes([Picture(np.zeros((1, 2, 2)), (1.0, 1.0))]) is None
    True
    """
    counts = Counter(axes for picture in pictures if (axes := axes_of(picture)))
    return counts.most_common(1)[0][0] if counts else None


def order_of(have: str, wanted: str | None) -> list[int] | None:
    """For each axis that is wanted, which of those that are there it is; None where nothing can or must be turned.

    A slice that shows another plane of the body cannot be turned into the one that is wanted.

    Examples
    --------
    >>> order_of("PIR", "RAS"), order_of("RAS", "RAS"), order_of("RA", "RS")
    ([2, 0, 1], None, None)
    """
    if not have or not wanted or have == wanted:
        return None
    there, asked = [AXIS[letter] for letter in have], [AXIS[letter] for letter in wanted]
    if sorted(there) != sorted(asked):
        return None
    return [there.index(axis) for axis in asked]


def turn(array: Tensor, have: str, wanted: str | None) -> Tensor:
    """Turn ``(channels, *space)`` from one order and direction of axes into another, exactly.

    Examples
    --------
    >>> import torch
    >>> turn(torch.tensor([[[1, 2], [3, 4]]]), "RA", "AL").tolist()
    [[[3, 1], [4, 2]]]
    """
    order = order_of(have, wanted)
    if order is None or wanted is None:
        return array
    flips = [1 + axis for axis, own in enumerate(order) if have[own] != wanted[axis]]
    return array.permute(0, *(1 + own for own in order)).flip(flips).contiguous()
