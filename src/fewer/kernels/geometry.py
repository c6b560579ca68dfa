"""Sizes that all convolutions of this room share: pairs of numbers, outputs, and what an image may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.kernels import guard

__all__ = ["as_pair", "check_image", "output_size"]


def as_pair(value: Any) -> tuple[int, int]:
    """Rows and columns of a setting that may be one number for both."""
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def output_size(size: Sequence[int], kernel, stride, padding, dilation) -> tuple[int, int]:
    """(rows, columns) of the output of an image of (rows, columns)."""
    guard.need(min(stride) > 0, f"a stride of {tuple(stride)}")
    rows, columns = ((size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1))
    return rows, columns


def check_image(x: Tensor, channels: int) -> None:
    """Raise a :class:`FewerError` unless the native kernels can take an image of so many channels."""
    if x.ndim != 4 or x.shape[1] != channels or x.dtype != torch.float32 or x.device.type != "cpu":
        raise FewerError(
            f"a native convolution needs a float32 CPU image [batch, {channels}, rows, columns]; "
            f"got {x.dtype} {tuple(x.shape)} on {x.device}"
        )
    if not torch.compiler.is_compiling():
        guard.plain(x)
    if torch.is_grad_enabled() and x.requires_grad:
        raise FewerError("the native kernels have no gradient; run the model under torch.inference_mode()")
