"""Pictures that are given in Python as Pillow images or arrays of bytes, alone or with labels, as the model wants them.

An array of bytes is a picture where its last dimension is the channels, as Pillow, imageio and scikit-image give it:
its colours are red, green, blue. OpenCV's are the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from fewer.data.decode import plain, to_array
from fewer.data.preprocess import Preprocess
from fewer.data.samples import TensorSamples

__all__ = ["are_pictures", "read_pictures"]


def are_pictures(given: Any) -> bool:
    """Whether the first of some items is a Pillow image or an array of bytes, or a pair that begins with one.

    Examples
    --------
    >>> are_pictures([Image.new("L", (1, 1))]), are_pictures([(Image.new("L", (1, 1)), 3)]), are_pictures([1])
    (True, True, False)
    >>> are_pictures(np.zeros((2, 32, 32, 3), np.uint8)), are_pictures(np.zeros((2, 3, 32, 32), np.uint8))
    (True, False)
    """
    if isinstance(given, (Mapping, str, torch.Tensor)) or not hasattr(given, "__getitem__"):
        return False
    try:
        first = given[0] if len(given) else None
    except (TypeError, KeyError, IndexError, NotImplementedError):  # a loader, or a set of another kind
        return False
    return isinstance(_picture(first), Image.Image)


def _is_array(item: Any) -> bool:
    """Height, width and channels, in bytes; channels that come first are not taken for a width."""
    bytes_of = isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim == 3
    return bytes_of and item.shape[2] in (1, 3, 4) and min(item.shape[:2]) > 4


def read_pictures(given: Any, count: int, preprocess: Preprocess) -> TensorSamples:
    """The first images of a list or a data set, resized and normalised like those of a folder.

    Examples
    --------
    >>> pictures = [(Image.new("RGB", (9, 7)), label) for label in range(3)]
    >>> read_pictures(pictures, 2, Preprocess(input_size=(3, 4, 4))).tensor.shape
    torch.Size([2, 3, 4, 4])
    """
    found = [to_array(plain(_picture(given[place])), preprocess) for place in range(min(count, len(given)))]
    return TensorSamples(torch.from_numpy(np.stack(found)))


def _picture(item: Any) -> Any:
    item = item[0] if isinstance(item, (tuple, list)) and item else item
    if not _is_array(item):
        return item
    return Image.fromarray(item[..., 0] if item.shape[2] == 1 else item)
