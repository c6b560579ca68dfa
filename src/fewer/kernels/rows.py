"""Native kernels on rows of activations: LayerNorm, and the merge of tokens. They are for inference."""

import ctypes
import math

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.kernels import guard, native
from fewer.kernels.ops import rows_of

__all__ = ["layer_norm", "merge_direct"]


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, residual: Tensor | None = None, out: str = "fp32"
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm of ``x + residual`` over the last dimension, in the number format that the next layer reads.

    Parameters
    ----------
    x : Tensor float32 [..., width]
        Rows.
    weight, bias : Tensor float32 [width]
        Affine parameters.
    eps : float
        Added to the variance.
    residual : Tensor float32 [..., width], optional
        Added first.
    out : str
        ``fp32``, ``bf16`` or ``int8`` (symmetric, one scale per row).

    Returns
    -------
    tuple of Tensor
        The normalised rows, their scales [...] (empty unless int8: value = integer * scale), and ``x + residual``.

    Raises
    ------
    FewerError
        For a wrong dtype or shape.

    Examples
    --------
    >>> import torch
    >>> y, scale, total = layer_norm(torch.randn(4, 8), torch.ones(8), torch.zeros(8), 1e-6)  # doctest: +SKIP
    """
    guard.need(x.ndim > 0 and x.shape[-1] > 0 and math.isfinite(eps), f"rows of shape {tuple(x.shape)}, eps {eps}")
    guard.need(weight.device.type == bias.device.type == "cpu", "weight and bias are not on the CPU")
    width = x.shape[-1]
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
    if out not in dtypes:
        raise FewerError(f"layer_norm has no output format {out!r}; choose one of {', '.join(dtypes)}")
    tensors = [x, weight, bias] + ([] if residual is None else [residual])
    if any(t.dtype != torch.float32 for t in tensors) or weight.shape != (width,) or bias.shape != (width,):
        raise FewerError(f"layer_norm needs float32 rows and float32 weight and bias of shape ({width},)")
    guard.plain(weight, bias, residual)
    guard.need(residual is None or residual.device.type == "cpu", "the residual is not on the CPU")
    if residual is not None and residual.shape != x.shape:
        raise FewerError(f"the residual has shape {tuple(residual.shape)} but the rows have {tuple(x.shape)}")
    rows = rows_of(x, width).contiguous()
    added = None if residual is None else residual.contiguous()
    total = rows if residual is None else torch.empty_like(rows)
    y = torch.empty(rows.shape, dtype=dtypes[out])
    scale = torch.empty(rows.shape[0] if out == "int8" else 0)
    weight, bias = weight.contiguous(), bias.contiguous()
    arguments = native.NormStruct(
        rows.data_ptr(),
        None if added is None else added.data_ptr(),
        None if added is None else total.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        eps,
        list(dtypes).index(out),
        y.data_ptr(),
        scale.data_ptr(),
        rows.shape[0],
        width,
        torch.get_num_threads(),
    )
    native.call(native.library().norm(ctypes.byref(arguments)), "layer norm")
    return y.view(x.shape), scale.view(x.shape[:-1]) if out == "int8" else scale, total.view(x.shape)


def merge_direct(x: Tensor, sizes: Tensor, origin: Tensor, count: int, protected: int) -> tuple[Tensor, Tensor, Tensor]:
    """Native form of :func:`fewer.tokens.merge.merge_tokens`: tokens, sizes and origins after the merge.

    Parameters
    ----------
    x : Tensor float32 [batch, tokens, width]
    sizes : Tensor float32 [batch, tokens]
    origin : Tensor int64 [batch, tokens of the image]
    count, protected : int
        Tokens to lose, and tokens in front that stay.

    Raises
    ------
    FewerError
        For wrong types or shapes, or more merges than there are pairs.
    """
    guard.need(x.ndim == 3 and 0 <= protected <= x.shape[1], f"{protected} protected of {tuple(x.shape)}")
    batch, tokens, width = x.shape
    guard.need(0 <= count <= (tokens - protected) // 2, f"{count} merges of {tokens - protected} tokens")
    guard.plain(x, sizes, origin)
    guard.need(all(t.device.type == "cpu" for t in (x, sizes, origin)), "tensors on another device")
    if x.dtype != torch.float32 or sizes.dtype != torch.float32 or origin.dtype != torch.int64:
        raise FewerError(
            f"tokens to merge are float32 with int64 origins; got {x.dtype}, {sizes.dtype}, {origin.dtype}"
        )
    if sizes.shape != (batch, tokens) or origin.ndim != 2 or origin.shape[0] != batch:
        raise FewerError(f"sizes {tuple(sizes.shape)} and origins {tuple(origin.shape)} do not fit {tuple(x.shape)}")
    x, sizes, origin = x.contiguous(), sizes.contiguous(), origin.contiguous()
    left = tokens - count
    y, total, placed = x.new_empty(batch, left, width), sizes.new_empty(batch, left), torch.empty_like(origin)
    arguments = native.MergeStruct(
        *(t.data_ptr() for t in (x, sizes, origin, y, total, placed)),
        batch,
        tokens,
        width,
        origin.shape[1],
        count,
        protected,
        torch.get_num_threads(),
    )
    native.call(native.library().merge(ctypes.byref(arguments)), "merge of tokens")
    return y, total, placed
