"""Random changes of a patch and its mask that keep what it shows; MONAI's transforms with a generator of our own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewer.models.monai import import_monai

__all__ = ["augmentation"]

Augment = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]


def augmentation(level: str, dims: int, mirror: int | None = 0) -> Augment:
    """A function of image ``(channels, *space)``, mask ``(1, *space)`` and generator.

    Parameters
    ----------
    level
        ``none``; ``upright``: mirrored along one axis, brightness and contrast; ``light``: flips along all axes,
        quarter turns of square planes, brightness and contrast; ``full``: as light, and rotation up to
        15 degrees, scale 0.8 to 1.2, gamma, blur and noise as well.
    dims
        2 or 3.
    mirror
        The axis of ``upright``, from left to right; None where no axis may be mirrored.

    Raises
    ------
    FewerError
        When ``full`` is asked for and MONAI is missing.

    Examples
    --------
    >>> image, mask = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    >>> augmentation("light", 2)(image, mask, np.random.default_rng(0))[1].shape
    torch.Size([1, 8, 8])
    """
    if level == "none":
        return lambda image, mask, rng: (image, mask)
    if level in ("light", "upright"):
        return _light if level == "light" else partial(_upright, mirror=mirror)
    heavy = _full(dims)

    def both(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        image, mask = _light(image, mask, rng)
        heavy.set_random_state(int(rng.integers(2**31)))
        found = heavy({"image": image, "mask": mask})
        return _plain(found["image"]), _plain(found["mask"]).to(torch.uint8)

    return both


def _plain(value: Any) -> Tensor:
    return (value.as_tensor() if hasattr(value, "as_tensor") else torch.as_tensor(value)).contiguous()


def _brighter(image: Tensor, rng: np.random.Generator) -> Tensor:
    gain, shift = 1 + 0.15 * float(rng.standard_normal()), 0.1 * float(rng.standard_normal())
    return image * gain + shift


def _upright(image: Tensor, mask: Tensor, rng: np.random.Generator, mirror: int | None) -> tuple[Tensor, Tensor]:
    if rng.random() < 0.5 and mirror is not None:
        image, mask = image.flip(1 + mirror), mask.flip(1 + mirror)
    return _brighter(image, rng), mask.contiguous()


def _light(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    axes = [axis for axis in range(1, image.ndim) if rng.random() < 0.5]
    turns, square = int(rng.integers(4)), image.shape[-1] == image.shape[-2]
    found = []
    for array in (image, mask):
        array = array.flip(axes) if axes else array
        found.append(torch.rot90(array, turns, (-2, -1)).contiguous() if square else array.contiguous())
    return _brighter(found[0], rng), found[1]


def _full(dims: int) -> Any:
    transforms = import_monai("monai.transforms")
    keys, angle = ("image", "mask"), np.pi / 12
    turn = (angle,) if dims == 2 else (angle,) * 3
    return transforms.Compose(
        [
            transforms.RandAffined(
                keys, prob=0.5, rotate_range=turn, scale_range=(0.2,) * dims, mode=("bilinear", "nearest"),
                padding_mode="zeros", allow_missing_keys=False,
            ),
            transforms.RandAdjustContrastd("image", prob=0.2, gamma=(0.7, 1.5), retain_stats=True),
            transforms.RandGaussianSmoothd("image", prob=0.15),
            transforms.RandGaussianNoised("image", prob=0.2, std=0.1),
        ]
    )  # fmt: skip
