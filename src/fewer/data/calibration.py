"""Whatever a user has for images becomes one fixed calibration tensor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.data.images import ImageSet, load_images
from fewer.data.preprocess import Preprocess
from fewer.data.samples import tensor_of

IMAGE_KEYS = ("pixel_values", "image", "images", "img", "x", "input")
"""Names of the image in a mapping, the first of them that it has."""


def as_calibration(
    images: Any,
    count: int | None = 64,
    *,
    seed: int = 0,
    preprocess: Preprocess | None = None,
    crops: int | None = 0,
    part: str | None = None,
    heldout: float = 0.25,
    sample_ndim: int = 3,
) -> ImageSet:
    """Make the fixed tensor on which distortion is measured.

    Parameters
    ----------
    images : path, list of paths, Tensor, array, iterable or ImageSet
        A folder (or files) of images; a tensor [N, ...] ready for the model; or an iterable, for example a
        DataLoader, of samples, batches, ``(images, labels)`` or ``{"pixel_values": images}``.
    count : int, optional
        Rows at most; the first ones of a tensor or iterable, a seeded choice of files. An endless iterable needs it.
    seed, preprocess, crops, part, heldout
        For files only; see :func:`fewer.data.images.load_images`.
    sample_ndim : int
        Dimensions of one sample of an iterable, which tell a sample from a batch: 3 for images, 2 for signals,
        4 for volumes.

    Returns
    -------
    ImageSet
        float32, without NaN or infinity.

    Raises
    ------
    FewerError
        When there is no image, shapes differ, a value is not finite or integers were not scaled.

    Examples
    --------
    >>> batches = [(torch.zeros(4, 3, 8, 8), torch.zeros(4)) for _ in range(3)]
    >>> tuple(as_calibration(batches, count=10).tensor.shape)
    (10, 3, 8, 8)
    """
    if count is not None and count < 1:
        raise FewerError(f"the number of calibration images must be at least 1; got {count}")
    if isinstance(images, ImageSet):
        return ImageSet(images.tensor[:count], images.files[:count], images.skipped)
    if isinstance(images, np.ndarray):
        images = tensor_of(images, "the images")
    if isinstance(images, Tensor):
        _refuse_kind(images, "the images")
        if images.ndim < 2 or not len(images):
            raise FewerError(f"the calibration tensor has shape {tuple(images.shape)}; it needs [images, ...]")
        return ImageSet(_checked(images[:count], 0))
    if _is_path(images):
        return load_images(images, count, seed, preprocess, crops=crops, part=part, heldout=heldout)
    if not isinstance(images, Iterable):
        raise FewerError(f"images are a folder, a tensor or an iterable of tensors; got {type(images).__name__}")
    iterator = items_of(images)
    first = next(iterator, None)
    if first is None:
        raise FewerError("the images are empty; give at least one")
    if _is_path(first):
        return load_images([first, *iterator], count, seed, preprocess, crops=crops, part=part, heldout=heldout)
    return ImageSet(_collect(chain([first], iterator), count, sample_ndim))


def items_of(images: Iterable[Any]) -> Iterator[Any]:
    """The items of somebody's iterable, whose own error is told with the number of the item that it had come to.

    Raises
    ------
    FewerError
        For any error but one of ours.

    Examples
    --------
    >>> list(items_of([1, 2]))
    [1, 2]
    >>> list(items_of(1 / n for n in [0]))
    Traceback (most recent call last):
    fewer.core.errors.FewerError: item 0 of the images cannot be had: ZeroDivisionError: division by zero
    """
    count = 0
    try:
        for item in images:
            yield item
            count += 1
    except (FewerError, MemoryError):
        raise
    except Exception as error:  # a data set may raise anything
        reason = " ".join(str(error).split())[:200]
        raise FewerError(f"item {count} of the images cannot be had: {type(error).__name__}: {reason}") from error


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _collect(items: Iterable[Any], count: int | None, sample_ndim: int) -> Tensor:
    rows: list[Tensor] = []
    total = 0
    for item in items:
        batch = image_of(item, total)
        if batch.ndim == sample_ndim:
            batch = batch[None]
        elif batch.ndim != sample_ndim + 1:
            raise FewerError(
                f"item {total} of the images has shape {tuple(batch.shape)}; a sample has {sample_ndim} dimensions, "
                f"a batch {sample_ndim + 1}"
            )
        if rows and batch.shape[1:] != rows[0].shape[1:]:
            raise FewerError(
                f"image {total} has shape {tuple(batch.shape[1:])}, the ones before {tuple(rows[0].shape[1:])}; "
                "resize them to one shape"
            )
        batch = _checked(batch if count is None else batch[: count - total], total)
        rows.append(batch)
        total += len(batch)
        if total == count:
            break
    if not total:
        raise FewerError("the images are empty; give at least one")
    return torch.cat(rows)


def image_of(item: Any, index: int) -> Tensor:
    """The image of an item: the tensor itself, the first of a pair, or the entry of a mapping with an image's name.

    Raises
    ------
    FewerError
        When there is none; ``index`` tells the user which item that was.
    """
    if isinstance(item, Mapping):
        item = next((item[key] for key in IMAGE_KEYS if key in item), None)
    elif isinstance(item, (tuple, list)) and item:
        item = item[0]
    if isinstance(item, np.ndarray):
        item = tensor_of(item, f"item {index} of the images")
    if not isinstance(item, Tensor):
        raise FewerError(
            f"item {index} of the images is no tensor but {type(item).__name__}; give tensors, (tensor, label) pairs, "
            f"or mappings with one of the keys {', '.join(IMAGE_KEYS)}"
        )
    _refuse_kind(item, f"item {index} of the images")
    return item


def _refuse_kind(tensor: Tensor, what: str) -> None:
    """Refuse a tensor that cannot be cut into samples and checked number by number."""
    if tensor.is_meta:
        raise FewerError(f"{what} lie on 'meta' and have no numbers")
    if tensor.is_nested or tensor.layout != torch.strided:
        raise FewerError(f"{what} are a nested or sparse tensor; give a dense one, or a list of tensors")


def _checked(rows: Tensor, offset: int) -> Tensor:
    if not rows.is_floating_point():
        raise FewerError(
            f"the images hold {rows.dtype} values; scale and normalise them as the model expects, as floating point"
        )
    rows = rows.detach().to("cpu", torch.float32, copy=True).contiguous()
    good = torch.isfinite(rows).flatten(1).all(dim=1)
    if not good.all():
        raise FewerError(f"image {offset + int((~good).nonzero()[0])} holds NaN or infinity; remove or repair it")
    return rows
