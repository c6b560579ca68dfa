"""Pictures for people: outlines of masks over an image; of a volume, the slice that shows most."""

from __future__ import annotations

import numpy as np

__all__ = ["COLOURS", "overlay"]

COLOURS = ((0, 200, 120), (255, 140, 0), (90, 140, 255), (230, 60, 200), (240, 220, 40), (0, 210, 230))
"""One for each class after the background; further ones begin again."""
REFERENCE = (255, 255, 255)


def overlay(
    image: np.ndarray, prediction: np.ndarray, reference: np.ndarray | None = None, side: int = 320
) -> np.ndarray:
    """Draw outlines over an image.

    Parameters
    ----------
    image
        Shape ``(channels, *space)``; one or three channels are shown, of others the first.
    prediction
        Class indices ``(*space)``: a coloured outline per class, and a faint fill.
    reference
        The same, as a white outline.
    side
        Pixels of the longer side.

    Returns
    -------
    numpy.ndarray
        uint8 (height, width, 3).

    Examples
    --------
    >>> mask = np.zeros((8, 10), int)
    >>> mask[2:6, 3:7] = 1
    >>> overlay(np.random.rand(1, 8, 10), mask, side=20).shape
    (16, 20, 3)
    """
    if prediction.ndim == 3:
        shown = (prediction > 0) | (reference > 0 if reference is not None else False)
        axis = int(np.argmin(prediction.shape))
        sums = shown.sum(tuple(i for i in range(3) if i != axis))
        where = int(sums.argmax()) if sums.any() else prediction.shape[axis] // 2
        image, prediction = image.take(where, axis + 1), prediction.take(where, axis)
        reference = None if reference is None else reference.take(where, axis)
    colours = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    low, high = np.percentile(colours, (0.5, 99.5))
    pixels = np.clip((colours - low) / max(high - low, 1e-6), 0, 1).transpose(1, 2, 0)
    scale = side / max(pixels.shape[:2])
    rows, columns = (
        np.minimum((np.arange(max(1, round(n * scale))) / scale).astype(int), n - 1) for n in pixels.shape[:2]
    )
    pixels = pixels[rows][:, columns] * 255
    guess = prediction[rows][:, columns]
    for index in np.unique(guess[guess > 0]):
        colour = np.array(COLOURS[(int(index) - 1) % len(COLOURS)])
        area = guess == index
        pixels[area] = 0.8 * pixels[area] + 0.2 * colour
        pixels[_outline(area, side)] = colour
    if reference is not None:
        truth = reference[rows][:, columns]
        for index in np.unique(truth[truth > 0]):
            pixels[_outline(truth == index, side)] = REFERENCE
    return np.rint(pixels).astype(np.uint8)


def _outline(area: np.ndarray, side: int) -> np.ndarray:
    inner = area
    for _ in range(max(1, side // 250)):  # thicker where the picture is larger
        outer, inner = inner, inner.copy()
        inner[1:] &= outer[:-1]
        inner[:-1] &= outer[1:]
        inner[:, 1:] &= outer[:, :-1]
        inner[:, :-1] &= outer[:, 1:]
    return area & ~inner
