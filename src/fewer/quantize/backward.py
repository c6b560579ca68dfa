"""Backward products of a linear layer in real integers, where this machine multiplies them faster than fp32."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from time import perf_counter

import torch
from torch import Tensor

__all__ = ["backward_products", "integer_products", "pays"]

_ROUNDS = 7
_TINY = 1e-30


def _codes(x: Tensor, axis: int | None = None, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Bytes and their scale: one for the tensor, or one for each index that is left when ``axis`` is summed over."""
    top = 2 ** (bits - 1) - 1
    peak = x.abs().amax() if axis is None else x.abs().amax(axis, keepdim=True)
    scale = peak.clamp(min=_TINY) / top
    return (x / scale).round().to(torch.int8), scale


def integer_products(signal: Tensor, x: Tensor, weight: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Gradients of input and weight as products of bytes; gradients of 4 bits lie in bytes as well.

    Parameters
    ----------
    signal
        Error signal [N, outputs], already rounded to integers of one scale, or it is rounded to the nearest here.
    x
        Input [N, inputs]; rounded with a scale for each column.
    weight
        [outputs, inputs]; rounded with a scale for each column.
    bits
        Of the signal.

    Returns
    -------
    tuple of Tensor
        [N, inputs] and [outputs, inputs], fp32. Sums are exact in 32 bits for up to 133,000 terms.

    Examples
    --------
    >>> signal, x, weight = torch.tensor([[127.0]]), torch.tensor([[2.0]]), torch.tensor([[3.0]])
    >>> [round(float(y), 3) for y in integer_products(signal, x, weight)]
    [381.0, 254.0]
    """
    e, scale = _codes(signal, None, bits)
    w, of_w = _codes(weight, 0)
    v, of_x = _codes(x, 0)
    product = torch._int_mm  # pyright: ignore[reportPrivateImportUsage]
    back = product(e, w).float() * (scale * of_w)
    return back, product(e.T.contiguous(), v).float() * (scale * of_x)


def _exact(signal: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return signal @ weight, signal.T @ x


@lru_cache(maxsize=256)
def pays(rows: int, outputs: int, inputs: int, threads: int) -> bool:
    """Whether products of bytes, rounding included, are faster here by a tenth; measured once for each shape.

    Both are timed in turns, and the best time of each counts.
    """
    draw = torch.Generator().manual_seed(0)
    signal, x = (torch.randn(rows, n, generator=draw) for n in (outputs, inputs))
    weight = torch.randn(outputs, inputs, generator=draw)
    best: dict[Callable[..., object], float] = {}
    try:
        for _ in range(_ROUNDS):
            for run in (integer_products, _exact):
                began = perf_counter()
                run(signal, x, weight)
                best[run] = min(best.get(run, torch.inf), perf_counter() - began)
    except RuntimeError:  # this build of torch cannot multiply such bytes
        return False
    return best[integer_products] < 0.9 * best[_exact]


def backward_products(signal: Tensor, x: Tensor, weight: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """:func:`integer_products` where they pay on this machine, else the products in fp32: never slower.

    Examples
    --------
    >>> a, b = backward_products(torch.ones(2, 3), torch.ones(2, 4), torch.ones(3, 4))
    >>> tuple(a.shape), tuple(b.shape)
    ((2, 4), (3, 4))
    """
    on_cpu = signal.device.type == "cpu" and signal.dtype == torch.float32
    if on_cpu and pays(len(signal), *weight.shape, torch.get_num_threads()):
        return integer_products(signal, x, weight, bits)
    return _exact(signal, x, weight)
