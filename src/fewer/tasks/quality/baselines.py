"""What a model must beat: ridge regression on pixel statistics, chance, and the most frequent answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewer.core.errors import FewerError

__all__ = ["RegressionHead", "flatten", "pixel_statistics"]


def pixel_statistics(pixels: np.ndarray) -> np.ndarray:
    """Ten numbers of an image: brightness, contrast, clipping, colour, and fine structure at two scales.

    Parameters
    ----------
    pixels
        uint8 (height, width, 3).

    Examples
    --------
    >>> pixel_statistics(np.zeros((8, 8, 3), np.uint8)).shape
    (10,)
    """
    values = pixels.astype(np.float64) / 255
    grey = values.mean(2)
    spread = values.max(2) - values.min(2)
    laplace = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    small = grey[: grey.shape[0] // 2 * 2, : grey.shape[1] // 2 * 2]
    half = (small[::2, ::2] + small[1::2, ::2] + small[::2, 1::2] + small[1::2, 1::2]) / 4
    coarse = 4 * half[1:-1, 1:-1] - half[:-2, 1:-1] - half[2:, 1:-1] - half[1:-1, :-2] - half[1:-1, 2:]
    rows = np.abs(np.diff(grey, axis=0)).mean(1)
    # at a multiple of eight rows, blocks of JPEG meet
    blocks = rows[7::8].mean() - rows.mean() if len(rows) > 8 else 0.0
    found = [grey.mean(), grey.std(), (grey > 0.98).mean(), (grey < 0.02).mean(), spread.mean(), spread.std()]
    found += [
        np.log(laplace.std() + 1e-4),
        np.log(coarse.std() + 1e-4),
        np.log(np.median(np.abs(laplace)) + 1e-4),
        blocks,
    ]
    return np.array(found)


class RegressionHead:
    """Ridge regression from features to a score, in closed form.

    Parameters
    ----------
    decay
        Of standardised weights.

    Examples
    --------
    >>> x = np.arange(12.0).reshape(6, 2)
    >>> RegressionHead(1e-6).fit(x, x[:, 0]).predict(x).round(3).tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """

    def __init__(self, decay: float = 1.0) -> None:
        self.decay = decay

    def fit(self, features: np.ndarray, scores: Sequence[float] | np.ndarray) -> RegressionHead:
        """Learn; features are [N, D]."""
        x, y = np.asarray(features, float), np.asarray(scores, float)
        if len(x) != len(y) or len(x) < 2:
            raise FewerError(f"a regression needs a score for each of two images at least; given {len(x)} and {len(y)}")
        self.mean, self.scale = x.mean(0), x.std(0) + 1e-9
        z = (x - self.mean) / self.scale
        self.offset = float(y.mean())
        self.weight = np.linalg.solve(z.T @ z + self.decay * np.eye(z.shape[1]), z.T @ (y - self.offset))
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Scores [N]."""
        return (np.asarray(features, float) - self.mean) / self.scale @ self.weight + self.offset


def flatten(scores: np.ndarray, count: int, bins: int = 20, seed: int = 0) -> np.ndarray:
    """Choose images so that their scores are spread evenly: as many of each bin as there are, up to a quota.

    Q-Instruct shows the effect of its sampling (Table 1) and not the way; a quota per bin is ours.

    Returns
    -------
    array [count] of int
        Places, sorted.

    Examples
    --------
    >>> flatten(np.array([1.0, 1.0, 1.0, 5.0]), 2).tolist()[-1]
    3
    """
    scores = np.asarray(scores, float)
    if not 0 < count <= len(scores):
        raise FewerError(f"{count} images of {len(scores)} cannot be chosen")
    rng = np.random.default_rng([seed, 19])
    edges = np.linspace(scores.min(), scores.max(), bins + 1)
    place = np.clip(np.searchsorted(edges, scores, "right") - 1, 0, bins - 1)
    order = rng.permutation(len(scores))
    # the how-manieth of its bin an image is; the lowest of these are taken
    turn = np.empty(len(scores), int)
    for name in np.unique(place):
        of = order[place[order] == name]
        turn[of] = np.arange(len(of))
    ranked = sorted(order.tolist(), key=lambda i: turn[i])
    return np.sort(np.array(ranked[:count]))
