"""Pictures for people: outlines of masks over an image; of a volume, the slice that shows most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["COLOURS", "colour_of", "compared", "legend", "one_slice", "overlay", "side_by_side"]

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
    image, prediction, *rest = one_slice(image, prediction, *([] if reference is None else [reference]))
    reference = rest[0] if rest else None
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


def compared(image: np.ndarray, prediction: np.ndarray, reference: np.ndarray, side: int = 240) -> np.ndarray:
    """The image, the reference over it and the prediction over it, side by side.

    Parameters
    ----------
    image, prediction, reference
        As for :func:`overlay`.
    side
        Pixels of the longer side of each panel.

    Examples
    --------
    >>> mask = np.zeros((8, 8), int)
    >>> compared(np.random.rand(1, 8, 8), mask, mask, side=16).shape
    (16, 60, 3)
    """
    image, prediction, reference = one_slice(image, prediction, reference)
    masks = (np.zeros_like(prediction), reference, prediction)
    return side_by_side([overlay(image, mask, side=side) for mask in masks])


def side_by_side(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures ``(height, width, 3)`` in one row, as high as the highest."""
    height, last = max(len(panel) for panel in panels), len(panels) - 1
    gaps = [((0, height - len(p)), (0, 6 if i < last else 0), (0, 0)) for i, p in enumerate(panels)]
    padded = [np.pad(panel, gap, constant_values=255) for panel, gap in zip(panels, gaps, strict=True)]
    return np.concatenate(padded, axis=1)


def legend(classes: Sequence[str]) -> dict[str, str]:
    """Colour of each class after the background, as HTML writes it.

    Examples
    --------
    >>> legend(["lesion"])
    {'lesion': '#00c878'}
    """
    return {name: colour_of(index) for index, name in enumerate(classes, 1)}


def colour_of(index: int) -> str:
    """Colour of the class with this index, as HTML writes it.

    Examples
    --------
    >>> colour_of(2)
    '#ff8c00'
    """
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[(index - 1) % len(COLOURS)])


def one_slice(image: np.ndarray, *masks: np.ndarray) -> list[np.ndarray]:
    """Of a volume, the slice in which the masks show most, the same of all arrays.

    Examples
    --------
    >>> mask = np.zeros((3, 8, 8), int)
    >>> mask[2, 3:5, 3:5] = 1
    >>> [part.shape for part in one_slice(np.zeros((1, 3, 8, 8)), mask)]
    [(1, 8, 8), (8, 8)]
    """
    if masks[0].ndim != 3:
        return [image, *masks]
    shown = np.any([mask > 0 for mask in masks], axis=0)
    axis = int(np.argmin(shown.shape))
    sums = shown.sum(tuple(i for i in range(3) if i != axis))
    where = int(sums.argmax()) if sums.any() else shown.shape[axis] // 2
    return [image.take(where, axis + 1), *(mask.take(where, axis) for mask in masks)]


def _outline(area: np.ndarray, side: int) -> np.ndarray:
    inner = area
    for _ in range(max(1, side // 250)):  # thicker where the picture is larger
        outer, inner = inner, inner.copy()
        inner[1:] &= outer[:-1]
        inner[:-1] &= outer[1:]
        inner[:, 1:] &= outer[:, :-1]
        inner[:, :-1] &= outer[:, 1:]
    return area & ~inner
