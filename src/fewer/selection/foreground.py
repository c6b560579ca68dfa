"""A guess, without any label, of how much of an image is foreground."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["foreground_share"]


def foreground_share(image: Image.Image) -> float:
    """Share of the pixels on the smaller side of Otsu's threshold, 0 where the image has no two sides.

    The image is judged at 64 x 64 pixels. A threshold always cuts an image into two; only where the two sides explain
    more than 75 % of the variance are they called foreground and background: normal noise reaches 64 %, a ramp 75 %.

    Parameters
    ----------
    image
        Of mode ``L``, ``RGB`` or ``F`` (0..255).

    Returns
    -------
    float
        Between 0 and 0.5.

    References
    ----------
    N. Otsu, A threshold selection method from gray-level histograms, 1979.

    Examples
    --------
    >>> picture = np.zeros((64, 64), np.uint8)
    >>> picture[:16] = 200
    >>> foreground_share(Image.fromarray(picture)), foreground_share(Image.new("L", (64, 64), 9))
    (0.25, 0.0)
    """
    grey = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BOX)).ravel()
    counts = np.bincount(grey, minlength=256).astype(np.float64) / grey.size
    below = np.cumsum(counts)[:-1]
    mean = np.cumsum(counts * np.arange(256))
    total = mean[-1]
    variance = float(counts @ (np.arange(256) - total) ** 2)
    weight = below * (1 - below)
    if variance < 1 or not weight.max() > 0:
        return 0.0
    between = np.divide((total * below - mean[:-1]) ** 2, weight, out=np.zeros_like(weight), where=weight > 0)
    best = int(between.argmax())
    if between[best] <= 0.75 * variance:
        return 0.0
    return float(min(below[best], 1 - below[best]))
