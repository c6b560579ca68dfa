"""The native kernels as functions on tensors, and as ``torch.library`` operators for ``torch.compile`` and export.

Each operator has a direct path (ctypes, no dispatcher) that eager code takes, and a registered operator with a fake
kernel that tracing takes. All are for inference: gradients do not flow through them.
"""

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.kernels import guard, native
from fewer.kernels.format import STRIP, UNIT, PackedWeight, check

_PRECISION = {mode: name for name, mode in native.MODES.items()}
TENSORS = 7
"""Tensors that make up one weight of an operator."""
_BY_VALUE_DTYPE = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


def correction(packed: PackedWeight) -> Tensor:
    """128 times the sum of each stored int8 row, int32 [strips * 16]: removes the offset of the activations.

    Examples
    --------
    >>> import torch
    >>> from fewer.kernels.format import pack
    >>> correction(pack(torch.ones(1, 4), precision="int8"))[:2].tolist()
    [32768, 0]
    """
    sums = torch.zeros(packed.strips, STRIP, dtype=torch.int64)
    counts = (packed.rowptr[1:] - packed.rowptr[:-1]).long()
    strip = torch.repeat_interleave(torch.arange(packed.strips), counts)
    sums.index_add_(0, strip, packed.vals.sum((1, 3), dtype=torch.int64))
    return (sums * 128).to(torch.int32).reshape(-1)


def narrow_sums(packed: PackedWeight) -> Tensor:
    """Whether an int8 weight can be multiplied as bytes without VNNI, bool [1].

    Products of bytes are added up in 16 bits there, which is exact where the weights of two neighbouring inputs add up
    to at most 128 in either sign: always for weights within [-64, 64], as :func:`~fewer.kernels.format.pack` makes
    them.

    Examples
    --------
    >>> import torch
    >>> from fewer.kernels.format import pack
    >>> narrow_sums(pack(torch.ones(16, 16), precision="int8"))
    tensor([True])
    """
    values = packed.vals.to(torch.int16)
    pairs = values.view(*values.shape[:3], 2, 2)  # [blocks, units, 16, pair, input]
    above, below = pairs.clamp_min(0).sum(-1), -pairs.clamp_max(0).sum(-1)
    return torch.maximum(above, below).le(128).all().reshape(1)


def int8_tables(packed: PackedWeight) -> tuple[Tensor, Tensor]:
    """:func:`correction` and :func:`narrow_sums` of a weight; both empty unless it is int8."""
    if packed.precision != "int8":
        return torch.zeros(0, dtype=torch.int32), torch.zeros(0, dtype=torch.bool)
    return correction(packed), narrow_sums(packed)


class NativeWeight:
    """The C struct of a packed weight, and the tensors it points into.

    Parameters
    ----------
    tensors : sequence of Tensor
        rowptr, kidx, vals, bias, scale, corr, narrow (the last three empty unless int8), all contiguous and on the CPU.
    shape : tuple of int
        (out, in).
    units : int
        Width of a block in units.
    """

    def __init__(self, tensors: Sequence[Tensor], shape: tuple[int, int], units: int) -> None:
        self.tensors = tuple(tensors)
        guard.need(len(self.tensors) == TENSORS, f"a packed weight has {TENSORS} tensors, not {len(self.tensors)}")
        rowptr, kidx, vals, bias, scale, corr, narrow = self.tensors
        guard.once((vals, rowptr, kidx, bias, scale, corr, narrow), (shape, units), lambda: self._check(shape, units))
        self.state = guard.state_of(self.tensors)
        int8 = vals.dtype == torch.int8
        self.shape = shape
        self.block = units * UNIT[_PRECISION[_BY_VALUE_DTYPE[vals.dtype]]]  # inputs of a block
        self.struct = native.WeightStruct(
            _BY_VALUE_DTYPE[vals.dtype],
            shape[0],
            shape[1],
            rowptr.numel() - 1,
            units,
            rowptr.data_ptr(),
            kidx.data_ptr(),
            vals.data_ptr(),
            bias.data_ptr(),
            scale.data_ptr() if int8 else None,
            corr.data_ptr() if int8 else None,
            int8 and bool(narrow),
        )
        self.pointer = ctypes.byref(self.struct)

    def _check(self, shape: tuple[int, int], units: int) -> None:
        """Hold the tensors against each other and against the size that they are said to have."""
        rowptr, kidx, vals, bias, scale, corr, narrow = self.tensors
        guard.need(vals.dtype in _BY_VALUE_DTYPE and vals.ndim == 4, f"values of {vals.dtype} are no packed weight")
        guard.need(min(*shape, units) > 0, f"a weight of {shape} in blocks of {units} units")
        guard.sizes(*shape, units)
        precision = _PRECISION[_BY_VALUE_DTYPE[vals.dtype]]
        for name, tensor in zip(("rowptr", "kidx", "vals", "bias", "scale"), self.tensors, strict=False):
            guard.vector(tensor, tensor.numel(), name, tensor.dtype)
        check(PackedWeight(precision, shape, units * UNIT[precision], rowptr, kidx, vals, bias, scale))
        if precision == "int8":
            guard.vector(corr, bias.numel(), "the correction", torch.int32)
            guard.need(narrow.dtype == torch.bool and narrow.numel() == 1, "the flag of narrow sums is missing")

    @classmethod
    def of(cls, packed: PackedWeight) -> "NativeWeight":
        """The struct of a packed weight, which is checked first."""
        tensors = (packed.rowptr, packed.kidx, packed.vals, packed.bias, packed.scale, *int8_tables(packed))
        return cls(tensors, packed.shape, packed.units)


def rows_of(x: Tensor, inputs: int, what: str = "the input") -> Tensor:
    """``x`` as a matrix [tokens, inputs] whose rows are contiguous; a copy only where strides make it necessary."""
    if x.dtype not in native.DTYPES:
        raise FewerError(f"{what} has dtype {x.dtype}; the native kernels take torch.float32 and torch.bfloat16")
    if x.device.type != "cpu":
        raise FewerError(f"{what} is on {x.device}; the native kernels run on the CPU, move it with .cpu()")
    if x.ndim == 0 or x.shape[-1] != inputs:
        raise FewerError(f"{what} has shape {tuple(x.shape)}; its last dimension must be {inputs}")
    if torch.is_grad_enabled() and x.requires_grad:
        raise FewerError("the native kernels have no gradient; run the model under torch.inference_mode()")
    guard.plain(x)
    rows = x.reshape(-1, inputs)
    return rows if rows.stride(1) == 1 or inputs == 1 else rows.contiguous()


def _activation(name: str | None) -> int:
    if name not in native.ACTIVATIONS:
        known = ", ".join(str(n) for n in native.ACTIVATIONS)
        raise FewerError(f"unknown activation {name!r}; choose one of {known}")
    return native.ACTIVATIONS[name]


def linear_direct(
    weight: NativeWeight, x: Tensor, residual: Tensor | None, act: int, norm: Sequence | None = None
) -> Tensor:
    """``act(norm(x) W^T + bias) + residual`` without the dispatcher; the output has the dtype of ``x``.

    ``norm`` is (weight, bias, eps) of a LayerNorm over the last dimension.
    """
    out, inputs = weight.shape
    rows = rows_of(x, inputs)
    y = torch.empty((rows.shape[0], out), dtype=x.dtype)
    if residual is not None:
        if residual.dtype != torch.float32 or residual.shape != (*x.shape[:-1], out):
            raise FewerError(
                f"the residual must be float32 of shape {(*x.shape[:-1], out)}; "
                f"got {residual.dtype} {tuple(residual.shape)}"
            )
        guard.plain(residual)
        flat = residual.reshape(-1, out)
        residual = flat if flat.stride(1) == 1 else flat.contiguous()
        guard.need(residual.device.type == "cpu", "the residual is not on the CPU")
    guard.need(act in native.ACTIVATIONS.values(), f"there is no activation {act}")
    if norm:
        guard.vector(norm[0], inputs, "the weight of the norm")
        guard.vector(norm[1], inputs, "the bias of the norm")
    kind = native.DTYPES[x.dtype]
    arguments = native.LinearStruct(
        rows.data_ptr(),
        rows.stride(0) if rows.shape[0] > 1 else inputs,
        kind,
        act,
        norm[0].data_ptr() if norm else None,
        norm[1].data_ptr() if norm else None,
        norm[2] if norm else 0.0,
        kind,
        y.data_ptr(),
        out,
        residual.data_ptr() if residual is not None else None,
        residual.stride(0) if residual is not None else 0,
        rows.shape[0],
        torch.get_num_threads(),
    )
    native.call(native.library().linear(weight.pointer, ctypes.byref(arguments)), "sparse linear")
    return y.view(*x.shape[:-1], out)


_LINEAR = "(Tensor x, Tensor[] weight, int out, int inputs, int units, Tensor? residual, int act) -> Tensor"


@torch.library.custom_op("fewer::sparse_linear", mutates_args=(), device_types="cpu", schema=_LINEAR)
def _sparse_linear(x, weight, out, inputs, units, residual, act):
    return linear_direct(NativeWeight(weight, (out, inputs), units), x, residual, act)


@_sparse_linear.register_fake
def _(x, weight, out, inputs, units, residual, act):
    return x.new_empty((*x.shape[:-1], out))


def tracing(x: Tensor) -> bool:
    """Whether ``x`` must go through the registered operator: under compile, export or trace, or not a plain tensor.

    ``torch.jit.trace`` sees no call of a library: it would keep the empty output, and answer with what is in memory.
    """
    traced = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return torch.compiler.is_compiling() or traced or type(x) is not Tensor


def sparse_linear(
    x: Tensor, packed: PackedWeight, *, activation: str | None = None, residual: Tensor | None = None
) -> Tensor:
    """Product with a packed weight: ``activation(x W^T + bias) + residual``.

    Parameters
    ----------
    x : Tensor float32 or bfloat16 [..., in]
        Activations, of any strides. int8 weights quantise them per token (row), symmetrically, from the largest
        magnitude of the row; a row with a NaN or an infinity gives NaN in all its outputs then.
    packed : PackedWeight
        The weight.
    activation : str, optional
        ``gelu`` (exact form), ``gelu_tanh``, ``relu``, ``relu6`` or ``silu``.
    residual : Tensor float32 [..., out], optional
        Added last.

    Returns
    -------
    Tensor [..., out]
        Of the dtype of ``x``.

    Raises
    ------
    FewerError
        For a wrong dtype, device or shape, or where the native library was not built.

    Examples
    --------
    >>> import torch
    >>> from fewer.kernels.format import pack
    >>> sparse_linear(torch.ones(1, 3), pack(2 * torch.eye(3))).tolist()  # doctest: +SKIP
    [[2.0, 2.0, 2.0]]
    """
    return linear_direct(NativeWeight.of(packed), x, residual, _activation(activation))


# --- attention -----------------------------------------------------------------------------------------------------
def _attention_direct(q: Tensor, k: Tensor, v: Tensor, scale: float, mode: int) -> Tensor:
    if q.ndim != 4 or k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise FewerError(
            f"attention needs q, k, v of shape [batch, heads, tokens, dim] with equal batch, heads and dim; "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.dtype not in native.DTYPES or k.dtype != q.dtype or v.dtype != q.dtype:
        raise FewerError(
            f"attention needs float32 or bfloat16 CPU tensors of one dtype; got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    guard.plain(q, k, v)
    guard.need(all(t.device.type == "cpu" for t in (q, k, v)), "tensors on another device")
    guard.need(mode in (0, 1) and math.isfinite(scale), f"mode {mode} and scale {scale}")
    guard.sizes(*q.shape, k.shape[2])
    if not k.shape[2] or not q.numel():  # nothing to attend to gives zeros, as torch says
        return torch.zeros((q.shape[0], q.shape[2], q.shape[1], q.shape[3]), dtype=q.dtype).transpose(1, 2)

    def contiguous(t: Tensor) -> Tensor:
        return t if t.stride(-1) == 1 or t.shape[-1] == 1 else t.contiguous()

    q, k, v = contiguous(q), contiguous(k), contiguous(v)
    batch, heads, queries, dim = q.shape
    # Token-major in memory, so that the heads of a token lie side by side for the next layer.
    out = torch.empty((batch, queries, heads, dim), dtype=q.dtype)
    kind = native.DTYPES[q.dtype]
    strides = [t.stride(d) for t in (q, k, v) for d in (0, 2, 1)]
    arguments = native.AttentionStruct(
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        *strides,
        out.data_ptr(),
        out.stride(0),
        out.stride(1),
        out.stride(2),
        kind,
        kind,
        mode,
        batch,
        heads,
        queries,
        k.shape[2],
        dim,
        scale,
        torch.get_num_threads(),
    )
    native.call(native.library().attention(ctypes.byref(arguments)), "attention")
    return out.transpose(1, 2)


@torch.library.custom_op(
    "fewer::attention",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor q, Tensor k, Tensor v, float scale, int mode) -> Tensor",
)
def _attention(q, k, v, scale, mode):
    return _attention_direct(q, k, v, scale, mode)


@_attention.register_fake
def _(q, k, v, scale, mode):
    batch, heads, queries, dim = q.shape
    return q.new_empty((batch, queries, heads, dim)).transpose(1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, precision: str = "fp32") -> Tensor:
    """Softmax attention without mask or dropout, the scores never leaving the cache.

    Parameters
    ----------
    q, k, v : Tensor float32 or bfloat16 [batch, heads, tokens, dim]
        Queries, keys and values, of any strides (a view of a joint projection needs no copy).
    scale : float, optional
        Of the scores; ``dim ** -0.5`` by default.
    precision : str
        Arithmetic of the two products: ``fp32`` or ``bf16``. The softmax is fp32 in both.

    Returns
    -------
    Tensor [batch, heads, tokens, dim]
        Of the dtype of ``q``; token-major in memory.

    Raises
    ------
    FewerError
        For a wrong dtype, device or shape.

    Examples
    --------
    >>> import torch
    >>> q = torch.randn(1, 2, 5, 8)
    >>> expected = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    >>> torch.allclose(attention(q, q, q), expected, atol=1e-5)  # doctest: +SKIP
    True
    """
    if precision not in ("fp32", "bf16"):
        raise FewerError(f"attention has no precision {precision!r}; choose fp32 or bf16")
    if q.ndim != 4 or k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise FewerError(
            f"attention needs q, k, v of shape [batch, heads, tokens, dim] with equal batch, heads and dim; "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.dtype not in native.DTYPES or k.dtype != q.dtype or v.dtype != q.dtype or q.device.type != "cpu":
        raise FewerError(
            f"attention needs float32 or bfloat16 CPU tensors of one dtype; got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if scale is not None and not (scale > 0 and math.isfinite(scale)):
        raise FewerError(f"the scale of attention must be positive, got {scale}")
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise FewerError("the native kernels have no gradient; run the model under torch.inference_mode()")
    factor = float(max(1, q.shape[3])) ** -0.5 if scale is None else float(scale)
    run = _attention if tracing(q) else _attention_direct
    return run(q, k, v, factor, native.MODES[precision])


# --- LayerNorm -----------------------------------------------------------------------------------------------------
# --- a whole transformer block ---------------------------------------------------------------------------------------
def block_direct(
    x: Tensor,
    layers: Sequence[NativeWeight],
    norms: Sequence[Tensor],
    eps: Sequence[float],
    heads: int,
    scale: float,
    mode: int,
    act: int,
    bias: Tensor | None = None,
) -> Tensor:
    """One pre-norm transformer block; ``layers``: qkv, proj, fc1, fc2; ``norms``: weight and bias of both norms.

    ``bias`` (batch, tokens) is added to the attention scores of each key.
    """
    _check_block(x, layers, norms, eps, heads, scale, mode, act)
    x = x.contiguous()
    if bias is not None:
        guard.plain(bias)
        if bias.shape != x.shape[:2]:
            raise FewerError(f"the bias of attention has shape {tuple(bias.shape)}, not {tuple(x.shape[:2])}")
        bias = bias.float().contiguous()
    y = torch.empty_like(x)
    arguments = native.BlockStruct(
        *(ctypes.pointer(layer.struct) for layer in layers),
        *(t.data_ptr() for t in norms),
        eps[0],
        eps[1],
        act,
        heads,
        x.shape[0],
        x.shape[1],
        x.data_ptr(),
        y.data_ptr(),
        mode,
        scale,
        torch.get_num_threads(),
        None if bias is None else bias.data_ptr(),
    )
    native.call(native.library().block(ctypes.byref(arguments)), "transformer block")
    return y


def _check_block(x, layers, norms, eps, heads, scale, mode, act) -> None:
    guard.plain(x)
    guard.need(x.ndim == 3 and x.dtype == torch.float32 and x.device.type == "cpu", f"tokens of {x.dtype}")
    width = x.shape[2]
    inner, hidden = layers[1].shape[1], layers[2].shape[0]
    expected = [(3 * inner, width), (width, inner), (hidden, width), (width, hidden)]
    guard.need([layer.shape for layer in layers] == expected, "the layers of a block do not fit each other")
    guard.need(heads > 0 and inner % heads == 0, f"{heads} heads of {inner} channels")
    guard.need(len(norms) == 4 and len(eps) == 2 and mode in (0, 1), "norms of a block")
    guard.need(act in native.ACTIVATIONS.values(), f"there is no activation {act}")
    guard.sizes(*x.shape, float(scale), *map(float, eps))
    for norm in norms:
        guard.vector(norm, width, "a norm of a block")


_BLOCK = (
    "(Tensor x, Tensor[] weights, int[] sizes, Tensor[] norms, float[] eps, int heads, float scale, int mode, int act, "
    "Tensor? bias=None) -> Tensor"
)


@torch.library.custom_op("fewer::vit_block", mutates_args=(), device_types="cpu", schema=_BLOCK)
def vit_block(x, weights, sizes, norms, eps, heads, scale, mode, act, bias=None):
    """The registered form of :func:`block_direct`: six tensors and three sizes (out, in, units) for each layer."""
    layers = [
        NativeWeight(weights[TENSORS * i : TENSORS * (i + 1)], (sizes[3 * i], sizes[3 * i + 1]), sizes[3 * i + 2])
        for i in range(4)
    ]
    return block_direct(x, layers, norms, eps, heads, scale, mode, act, bias)


@vit_block.register_fake
def _(x, weights, sizes, norms, eps, heads, scale, mode, act, bias=None):
    return x.new_empty(x.shape)


def precision_of(vals: Tensor) -> str:
    """The precision that stored values have: fp32, bf16 or int8."""
    return _PRECISION[_BY_VALUE_DTYPE[vals.dtype]]


assert set(UNIT) == set(native.MODES)
