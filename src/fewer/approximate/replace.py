"""Swapping the non-linear operations of any model for integer ones without rewriting it: simulated, not exported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewer.approximate.activation import ACTIVATIONS
from fewer.approximate.attention import dot_product_attention, multi_head_attention
from fewer.approximate.calls import read_call
from fewer.approximate.norm import NORMS
from fewer.approximate.softmax import SOFTMAXES
from fewer.core.errors import FewerError
from fewer.kernels.copies import copied_module, set_evaluating

__all__ = ["KIND_OF", "InIntegers", "Replaced", "by_function", "replace_functions"]

_SCALE = 2.0**-10

KIND_OF = {"softmax": "softmax", "gelu": "activation", "silu": "activation", "layer-norm": "norm", "rms-norm": "norm"}
"""Functions that integers can stand for, and of what kind they are."""


def by_function(methods: Mapping[str, str]) -> dict[str, str]:
    """Function to method, of a mapping that may name kinds in place of functions.

    Examples
    --------
    >>> by_function({"softmax": "table", "activation": "table-gelu", "norm": "layer-norm"})
    {'softmax': 'table', 'gelu': 'table-gelu', 'layer-norm': 'layer-norm'}
    """
    found = {}
    for key, method in methods.items():
        if key == "activation":
            key = "silu" if method.endswith("silu") else "gelu"
        elif key == "norm":
            key = "rms-norm" if method == "rms-norm" else "layer-norm"
        found[key] = method
    return found


def _integer(run: Callable[..., Any], x: Tensor, span: Any = None, scale: float = _SCALE) -> Tensor:
    q = torch.round(x.detach().double() / scale).clamp(-(2**30), 2**30).to(torch.int64).cpu().numpy()
    y, out = run(q, scale, span)
    return torch.from_numpy(np.asarray(y * out)).to(x)


class InIntegers(TorchFunctionMode):
    """Softmax, GELU, SiLU and norms go through integers while this is entered, wherever they are called."""

    def __init__(self, methods: Mapping[str, str], active: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self.active = active
        self.methods = by_function(methods)
        self.calls: dict[str, int] = {"softmax": 0, "activation": 0, "norm": 0}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = read_call(func, args, kwargs)
        method = None if found is None else self.methods.get(found.function)
        if found is None or method is None or not self.active():
            return func(*args, **kwargs)
        kind = KIND_OF[found.function]
        self.calls[kind] += 1
        if kind == "activation":
            return _activation(method, **found.arguments)
        if kind == "norm":
            return _norm(method, **found.arguments)
        softmax = partial(_softmax, method)
        if found.form == "rows":
            return _rows(softmax, **found.arguments)
        if found.form == "attention":
            return dot_product_attention(softmax, **found.arguments)
        return multi_head_attention(softmax, found.arguments)


def _softmax(method: str, x: Tensor) -> Tensor:
    # what a mask forbids is far below everything else, not infinitely
    floor = x.amax(-1, keepdim=True).clamp(max=0) - 1e5
    return _integer(SOFTMAXES[method].run, torch.maximum(x, floor))


def _rows(
    softmax: Callable[[Tensor], Tensor], input: Tensor, dim: int | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    x = input if dtype is None else input.to(dtype)
    if dim is None:  # as torch did before it asked for one
        dim = 0 if x.dim() in (0, 1, 3) else 1
    return softmax(x.movedim(dim, -1)).movedim(-1, dim)


def _activation(method: str, input: Tensor, inplace: bool = False, approximate: str = "none") -> Tensor:
    span = (float(input.min()), float(input.max()))
    y = _integer(ACTIVATIONS[method].run, input, span)
    return input.copy_(y) if inplace else y


def _norm(
    method: str,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    scale = 2.0 ** math.ceil(math.log2(max(float(input.abs().max()), 1e-6) / 2**21))
    span = input.abs().amax(dim=tuple(range(input.dim() - 1))).double().cpu().numpy()
    if eps is None:  # that of torch's functions: a layer norm has a number, an RMS norm that of its type
        eps = torch.finfo(input.dtype).eps if method == "rms-norm" else 1e-5
    y = _integer(partial(NORMS[method].run, epsilon=eps), input, span, scale)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


class Replaced(nn.Module):
    """A model whose softmax, activations and norms go through integers; everything else is as it was.

    Attributes
    ----------
    inner
        A copy of the model.
    calls
        How often each kind was met in the last forward pass.
    """

    def __init__(self, model: nn.Module, softmax: str | None, activation: str | None, norm: str | None) -> None:
        super().__init__()
        self.inner = set_evaluating(copied_module(model))
        named = {"softmax": softmax, "activation": activation, "norm": norm}
        self.methods = {kind: method for kind, method in named.items() if method is not None}
        if norm is not None:
            self.methods["rms-norm"] = "rms-norm"
        if activation is not None and activation.endswith("gelu"):  # a network may call both
            partner = activation.replace("gelu", "silu")
            self.methods["silu"] = partner if partner in ACTIVATIONS else "table-silu"
        self.calls: dict[str, int] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's."""
        was = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it would not call the functions one by one
        try:
            with torch.no_grad(), InIntegers(self.methods) as mode:
                found = self.inner(*args, **kwargs)
        finally:
            torch.backends.mha.set_fastpath_enabled(was)
        self.calls = mode.calls
        return found


def replace_functions(
    model: nn.Module,
    example: Tensor,
    *,
    softmax: str | None = SOFTMAXES.default,
    activation: str | None = ACTIVATIONS.default,
    norm: str | None = NORMS.default,
) -> Replaced:
    """A copy of a model with integer softmax, activation and norm, to see what they do to its results.

    Functions are met where they are called, so that networks of timm, transformers, ``nn.MultiheadAttention`` and one's
    own need no change. The integer results are turned back into floating point: a simulation of the operations, where
    :func:`~fewer.approximate.compile.compile_transformer` makes integers of everything.

    Parameters
    ----------
    model
        Stays as it is.
    example
        One input, on which it is tried.
    softmax, activation, norm
        Names of the tables; None leaves that kind alone. A method of GELU brings that of SiLU of the same name, or a
        table, with it; one of SiLU stands for SiLU alone.

    Raises
    ------
    FewerError
        For an unknown name, or when the model calls none of these functions.

    Examples
    --------
    >>> layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True).eval()
    >>> x = torch.randn(1, 5, 16)
    >>> replaced = replace_functions(layer, x)
    >>> replaced.calls
    {'softmax': 1, 'activation': 1, 'norm': 2}
    >>> bool((replaced(x) - layer(x)).abs().max() < 0.05)
    True
    """
    for table, name in ((SOFTMAXES, softmax), (ACTIVATIONS, activation), (NORMS, norm)):
        if name is not None:
            _ = table[name]
    made = Replaced(model, softmax, activation, norm)
    made(example)
    if not any(made.calls.values()):
        name = type(model).__name__
        raise FewerError(f"{name} calls no softmax, GELU, SiLU, LayerNorm or RMSNorm, so nothing was replaced")
    return made
