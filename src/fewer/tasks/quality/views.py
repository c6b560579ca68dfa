"""What a model sees of an image: the whole, and crops at native resolution, since shrinking hides blur and noise."""

from __future__ import annotations

import numpy as np

from fewer.core.errors import FewerError

__all__ = ["places", "views"]


def places(height: int, width: int, side: int, count: int) -> list[tuple[int, int]]:
    """Upper left corners of crops: the centre first, then the four corners, then between them.

    Examples
    --------
    >>> places(100, 200, 50, 2)
    [(25, 75), (0, 0)]
    """
    shares = [(0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1)]
    if count > len(shares):
        raise FewerError(f"{count} crops are more than the {len(shares)} places that are known")
    return [(int(y * max(0, height - side)), int(x * max(0, width - side))) for y, x in shares[:count]]


def views(pixels: np.ndarray, side: int, crops: int) -> np.ndarray:
    """The whole image on a grey square, and crops in its own pixels.

    An image that fits into the square is laid into it as it is; a larger one is made smaller for the first view alone.

    Parameters
    ----------
    pixels
        uint8 (height, width, 3).
    side
        Pixels of a view.
    crops
        Number of crops; 0 for images that fit.

    Returns
    -------
    array
        uint8 [1 + crops, 3, side, side].

    Examples
    --------
    >>> views(np.zeros((40, 60, 3), np.uint8), 64, 2).shape
    (3, 3, 64, 64)
    """
    height, width = pixels.shape[:2]
    whole = pixels
    if max(height, width) > side:
        from PIL import Image

        factor = side / max(height, width)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        whole = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    found = [_lay(whole, side)]
    for top, left in places(height, width, side, crops):
        found.append(_lay(pixels[top : top + side, left : left + side], side))
    return np.stack(found).transpose(0, 3, 1, 2)


def _lay(pixels: np.ndarray, side: int) -> np.ndarray:
    square = np.full((side, side, 3), 128, np.uint8)
    top, left = (side - pixels.shape[0]) // 2, (side - pixels.shape[1]) // 2
    square[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return square
