"""Damage that a network learns to undo: the corruptions of Models Genesis, in 2-D and 3-D.

Local shuffling and the two kinds of painting are MONAI's transforms; the Bezier map of intensities is our own, from the
description in Zhou et al., "Models Genesis" (MICCAI 2019). Curve and probabilities (those of SAAL's released settings)
are shared with :mod:`fewer.data.corrupt`, which does the same to photos.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewer.data.corrupt import CURVE, OUTWARD, PAINT, SHUFFLE, bezier_curve
from fewer.models.monai import import_monai

__all__ = ["bezier_map", "corruption"]


def bezier_map(values: Tensor, rng: np.random.Generator, *, monotone: bool) -> Tensor:
    """Map intensities through a random cubic Bezier curve from one end of their range to the other.

    The curve has its ends at (0, 0) and (1, 1), or with the second coordinate turned around in half of the cases, and
    two random points of control. The range of the values stays what it was.

    Parameters
    ----------
    values
        Any shape.
    rng
        Of all choices.
    monotone
        Whether the curve must rise all the way, so that the order of intensities stays.

    Examples
    --------
    >>> x = torch.linspace(-1, 3, 50)
    >>> y = bezier_map(x, np.random.default_rng(0), monotone=True)
    >>> bool((y[1:] >= y[:-1]).all()), float(y[0]), float(y[-1])
    (True, -1.0, 3.0)
    """
    low, high = values.min(), values.max()
    if high - low < 1e-6:
        return values
    at, found = bezier_curve(rng, monotone=monotone)
    scaled = ((values - low) / (high - low)).double().numpy()
    return torch.from_numpy(np.interp(scaled, at, found)).to(values.dtype) * (high - low) + low


def corruption(patch: tuple[int, ...]) -> Callable[[Tensor, np.random.Generator], Tensor]:
    """A function that damages an image ``(channels, *patch)``.

    Raises
    ------
    FewerError
        When MONAI is missing.

    Examples
    --------
    >>> damage = corruption((16, 16))  # doctest: +SKIP
    >>> damage(torch.rand(1, 16, 16), np.random.default_rng(0)).shape  # doctest: +SKIP
    torch.Size([1, 16, 16])
    """
    transforms = import_monai("monai.transforms")

    def sides(share: float) -> list[int]:
        return [max(1, int(share * n)) for n in patch]

    # small windows, so many that much of the picture is shuffled
    count, largest = 40 * len(patch), [max(2, n) for n in sides(0.1)]
    shuffle = transforms.RandCoarseShuffle(holes=count, spatial_size=2, max_spatial_size=largest, prob=1.0)

    def paint(outward: bool, low: float, high: float) -> Any:
        small, large = sides(3 / 7 if outward else 1 / 6), sides(4 / 7 if outward else 1 / 3)
        return transforms.RandCoarseDropout(
            holes=1, max_holes=5, spatial_size=small, max_spatial_size=large, dropout_holes=not outward,
            fill_value=(low, high), prob=1.0,
        )  # fmt: skip

    def damage(image: Tensor, rng: np.random.Generator) -> Tensor:
        found = image.clone()
        if rng.random() < SHUFFLE:
            found = _plain(shuffle.set_random_state(int(rng.integers(2**31)))(found))
        if rng.random() < CURVE:
            found = bezier_map(found, rng, monotone=bool(rng.random() < 0.5))
        if rng.random() < PAINT:
            painter = paint(bool(rng.random() < OUTWARD), float(image.min()), float(image.max()))
            found = _plain(painter.set_random_state(int(rng.integers(2**31)))(found))
        return found.to(image.dtype)

    return damage


def _plain(value: Any) -> Tensor:
    return value.as_tensor() if hasattr(value, "as_tensor") else torch.as_tensor(value)
