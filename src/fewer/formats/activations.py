"""Rounding of activations: each row of a matrix of tokens with a scale of its own."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["round_tokens"]


def round_tokens(x: Tensor, precision: str = "int8", axis: int = -1) -> Tensor:
    """Round activations as a kernel of a precision does before it multiplies.

    Parameters
    ----------
    x
        Any shape.
    precision
        ``int8``: symmetric, one scale for each token (all values along ``axis``), from its largest magnitude.
        ``bf16``: to nearest even. ``fp32``: left as they are.
    axis
        Along which a token lies: the last of a linear layer's input, 1 of an image.

    Returns
    -------
    Tensor
        The dtype and shape of x.

    Examples
    --------
    >>> round_tokens(torch.tensor([[127.0, 0.4, 1.6]]))
    tensor([[127.,   0.,   2.]])
    """
    if precision == "fp32":
        return x
    if precision == "bf16":
        return x.to(torch.bfloat16).to(x.dtype)
    peak = x.abs().amax(axis, keepdim=True)
    scale = torch.where(peak > 0, peak / 127, torch.ones_like(peak))
    return (x / scale).round() * scale
