"""Backward products of linear layers and convolutions in real integers, where this machine has them faster than fp32.

A convolution becomes a product of two matrices: the windows of its input, or of its error signal, laid out in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from time import perf_counter

import torch
from torch import Tensor

__all__ = [
    "backward_products",
    "convolution_products",
    "integer_convolution",
    "integer_products",
    "pays",
    "pays_convolution",
]

_ROUNDS = 7
_TINY = 1e-30
_TERMS = 2**17
"""Products of two bytes whose sum fits into 32 bits: 2**17 * 127 * 127 is less than 2**31."""


Pair = tuple[Tensor, Tensor]


def _codes(x: Tensor, axis: int | tuple[int, ...] | None = None, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Bytes and their scale: one for the tensor, or one for each index that is left when ``axis`` is summed over."""
    top = 2 ** (bits - 1) - 1
    peak = x.abs().amax() if axis is None else x.abs().amax(axis, keepdim=True)
    scale = peak.clamp(min=_TINY) / top
    return (x / scale).round().to(torch.int8), scale


def integer_products(signal: Tensor, x: Tensor, weight: Tensor, bits: int = 8) -> Pair:
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
        [N, inputs] and [outputs, inputs], fp32. Sums over N are made in parts that are exact in 32 bits.

    Examples
    --------
    >>> signal, x, weight = torch.tensor([[127.0]]), torch.tensor([[2.0]]), torch.tensor([[3.0]])
    >>> [round(float(y), 3) for y in integer_products(signal, x, weight)]
    [381.0, 254.0]
    """
    e, scale = _codes(signal, None, bits)
    w, of_w = _codes(weight, 0)
    v, of_x = _codes(x, 0)
    back = _product(e, w) * (scale * of_w)
    return back, _summed(e, v) * (scale * of_x)


def integer_convolution(
    signal: Tensor, x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, bits: int = 8
) -> Pair:
    """Gradients of input and weight of a two-dimensional convolution as products of bytes.

    Parameters
    ----------
    signal
        Error signal [N, outputs, H', W'], as for :func:`integer_products`.
    x
        Input [N, inputs, H, W]; rounded with a scale for each channel.
    weight
        [outputs, inputs, k, k]; rounded with a scale for each channel of the input.
    stride, padding
        Of the convolution, alike in both directions; padding is at most k - 1, and there are no groups.
    bits
        Of the signal.

    Returns
    -------
    tuple of Tensor
        In the shapes of ``x`` and ``weight``, fp32.

    Examples
    --------
    >>> signal, x = torch.full((1, 1, 1, 1), 127.0), torch.ones(1, 1, 2, 2)
    >>> of_x, of_weight = integer_convolution(signal, x, torch.ones(1, 1, 2, 2))
    >>> of_x.flatten().tolist(), of_weight.flatten().tolist()
    ([127.0, 127.0, 127.0, 127.0], [127.0, 127.0, 127.0, 127.0])
    """
    outputs, inputs, size, _ = weight.shape
    e, scale = _codes(signal, None, bits)
    w, of_w = _codes(weight, (0, 2, 3))
    v, of_x = _codes(x, (0, 2, 3))
    e, v = (t.permute(0, 2, 3, 1).contiguous() for t in (e, v))  # channels last: a row of a window lies in one piece

    seen = _windows(_padded(v, padding, padding, x.shape[2:]), size, stride, signal.shape[2:])
    grown = _summed(e.flatten(0, 2), seen)
    grown = grown.view(outputs, size, size, inputs).permute(0, 3, 1, 2) * (scale * of_x)

    # the gradient of the input is a convolution of the signal with the turned weight, zeros between its pixels
    spread = e
    if stride > 1:
        high, wide = (stride * (n - 1) + 1 for n in signal.shape[2:])
        spread = e.new_zeros(len(e), high, wide, outputs)
        spread[:, ::stride, ::stride] = e
    border = size - 1 - padding
    reach = tuple(n + size - 1 - 2 * border for n in x.shape[2:])  # with what the stride left over at the end
    spread = _padded(spread, border, border, reach)
    turned = w.flip(2, 3).permute(2, 3, 0, 1).reshape(-1, inputs)
    back = _product(_windows(spread, size, 1, x.shape[2:]), turned)
    back = back.view(len(x), *x.shape[2:], inputs).permute(0, 3, 1, 2)
    return back * (scale * of_w), grown


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Of matrices of bytes, fp32."""
    product = torch._int_mm  # pyright: ignore[reportPrivateImportUsage]
    # torch takes the steps of a matrix of one row for its width: what is one row of a column comes out wrong
    a, b = (m if m.stride() == (m.shape[1], 1) else m.clone(memory_format=torch.contiguous_format) for m in (a, b))
    return product(a, b).float()


def _summed(signal: Tensor, x: Tensor) -> Tensor:
    """Of bytes [N, outputs] and [N, inputs] the products [outputs, inputs], fp32, in parts that 32 bits can hold."""
    made = [_product(a.T, b) for a, b in zip(signal.split(_TERMS), x.split(_TERMS), strict=True)]
    return made[0] if len(made) == 1 else torch.stack(made).sum(0)


def _padded(x: Tensor, before: int, after: int, reach: Sequence[int]) -> Tensor:
    """Zeros around images [N, H, W, C], as if they had been of the size ``reach``."""
    if not before and not after and tuple(x.shape[1:3]) == tuple(reach):
        return x
    made = x.new_zeros(len(x), *(before + n + after for n in reach), x.shape[3])
    made[:, before : before + x.shape[1], before : before + x.shape[2]] = x
    return made


def _windows(x: Tensor, size: int, stride: int, count: Sequence[int]) -> Tensor:
    """The windows of images [N, H, W, C], a row [size x size x C] for each of the ``count`` places of each image."""
    if size == 1 and stride == 1:
        return x.flatten(0, 2)
    images, _, wide, channels = x.shape
    step = wide * channels
    shape = (images, *count, size, size * channels)
    strides = (x.stride(0), stride * step, stride * channels, step, 1)
    return x.as_strided(shape, strides).reshape(-1, size * size * channels)


def _exact(signal: Tensor, x: Tensor, weight: Tensor) -> Pair:
    return signal @ weight, signal.T @ x


def _exact_convolution(signal: Tensor, x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Pair:
    how = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [True, True, False])
    return torch.ops.aten.convolution_backward(signal, x, weight, None, *how)[:2]


def _faster(integers: Callable[[], Pair], exact: Callable[[], Pair]) -> bool:
    """Whether the integers are faster by a tenth: both are timed in turns, and the best time of each counts."""
    best: dict[Callable[[], Pair], float] = {}
    try:
        for _ in range(_ROUNDS):
            for run in (integers, exact):
                began = perf_counter()
                run()
                best[run] = min(best.get(run, torch.inf), perf_counter() - began)
    except RuntimeError:  # this build of torch cannot multiply such bytes
        return False
    return best[integers] < 0.9 * best[exact]


@lru_cache(maxsize=256)
def pays(rows: int, outputs: int, inputs: int, threads: int) -> bool:
    """Whether products of bytes, rounding included, are faster here by a tenth; measured once for each shape."""
    draw = torch.Generator().manual_seed(0)
    signal, x = (torch.randn(rows, n, generator=draw) for n in (outputs, inputs))
    weight = torch.randn(outputs, inputs, generator=draw)
    return _faster(lambda: integer_products(signal, x, weight), lambda: _exact(signal, x, weight))


@lru_cache(maxsize=256)
def pays_convolution(
    signal: tuple[int, ...], x: tuple[int, ...], weight: tuple[int, ...], stride: int, padding: int, threads: int
) -> bool:
    """:func:`pays` for a convolution, by the shapes of its error signal, its input and its weight."""
    draw = torch.Generator().manual_seed(0)
    e, v, w = (torch.randn(*shape, generator=draw) for shape in (signal, x, weight))
    return _faster(
        lambda: integer_convolution(e, v, w, stride, padding), lambda: _exact_convolution(e, v, w, stride, padding)
    )


def backward_products(signal: Tensor, x: Tensor, weight: Tensor, bits: int = 8) -> Pair:
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


def convolution_products(
    signal: Tensor, x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, bits: int = 8
) -> Pair:
    """:func:`integer_convolution` where it pays on this machine, else the products in fp32: never slower.

    Examples
    --------
    >>> signal, x, weight = torch.ones(1, 2, 4, 4), torch.ones(1, 3, 4, 4), torch.ones(2, 3, 3, 3)
    >>> a, b = convolution_products(signal, x, weight, padding=1)
    >>> tuple(a.shape), tuple(b.shape)
    ((1, 3, 4, 4), (2, 3, 3, 3))
    """
    fits = padding < weight.shape[2] == weight.shape[3]
    on_cpu = signal.device.type == "cpu" and signal.dtype == torch.float32
    shapes = tuple(signal.shape), tuple(x.shape), tuple(weight.shape)
    if on_cpu and fits and pays_convolution(*shapes, stride, padding, torch.get_num_threads()):
        return integer_convolution(signal, x, weight, stride, padding, bits)
    return _exact_convolution(signal, x, weight, stride, padding)
