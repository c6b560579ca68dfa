"""Swapping the non-linear operations of any model for integer ones without rewriting it: simulated, not exported."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewer.approximate.activation import ACTIVATIONS
from fewer.approximate.norm import NORMS
from fewer.approximate.softmax import SOFTMAXES
from fewer.core.errors import FewerError
from fewer.kernels.copies import set_evaluating

__all__ = ["InIntegers", "Replaced", "replace_functions"]

_SCALE = 2.0**-10


def _integer(run: Callable[..., Any], x: Tensor, span: Any = None, scale: float = _SCALE) -> Tensor:
    q = torch.round(x.detach().double() / scale).clamp(-(2**30), 2**30).to(torch.int64).cpu().numpy()
    y, out = run(q, scale, span)
    return torch.from_numpy(np.asarray(y * out)).to(x)


class InIntegers(TorchFunctionMode):
    """Softmax, GELU, SiLU and LayerNorm go through integers while this is entered, wherever they are called."""

    def __init__(self, softmax: str | None, activation: str | None, norm: str | None) -> None:
        super().__init__()
        self.softmax, self.activation, self.norm = softmax, activation, norm
        self.calls: dict[str, int] = {"softmax": 0, "activation": 0, "norm": 0}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.softmax and func in (F.softmax, torch.softmax, Tensor.softmax):
            x, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else -1)
            return self._softmax(x.movedim(dim, -1)).movedim(-1, dim)
        if self.softmax and func is F.multi_head_attention_forward:
            bound = inspect.signature(func).bind(*args, **kwargs)
            bound.apply_defaults()
            if _is_plain(bound.arguments):
                return self._multi_head(bound.arguments)
        if self.softmax and func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        name = {F.gelu: "gelu", F.silu: "silu"}.get(func)
        if self.activation and name and self.activation.endswith(name):
            self.calls["activation"] += 1
            span = (float(args[0].min()), float(args[0].max()))
            return _integer(ACTIVATIONS[self.activation].run, args[0], span)
        if self.norm and func is F.layer_norm and len(args[1]) == 1:
            return self._layer_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _softmax(self, x: Tensor) -> Tensor:
        self.calls["softmax"] += 1
        assert self.softmax is not None
        # what a mask forbids is far below everything else, not infinitely
        return _integer(SOFTMAXES[self.softmax].run, x.clamp(min=-1e5))

    def _attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **_: Any,
    ) -> Tensor:
        logits = q @ k.transpose(-2, -1) * (scale or 1 / math.sqrt(q.shape[-1]))
        if is_causal:
            keep = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
            logits = logits.masked_fill(~keep, -math.inf)
        if attn_mask is not None:
            is_bool = attn_mask.dtype == torch.bool
            logits = logits.masked_fill(~attn_mask, -math.inf) if is_bool else logits + attn_mask
        return self._softmax(logits) @ v

    def _multi_head(self, a: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """``nn.MultiheadAttention`` from its packed weights; tokens first, as torch calls it."""
        query, heads = a["query"], a["num_heads"]
        weights = a["in_proj_weight"].chunk(3)
        biases = (None,) * 3 if a["in_proj_bias"] is None else a["in_proj_bias"].chunk(3)
        sides = zip((query, a["key"], a["value"]), weights, biases, strict=True)

        def split(x: Tensor) -> Tensor:  # [tokens, batch, width] to [batch, heads, tokens, width of a head]
            return x.reshape(x.shape[0], x.shape[1], heads, -1).permute(1, 2, 0, 3)

        q, k, v = (split(F.linear(x, w, b)) for x, w, b in sides)
        logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        for mask in (a["attn_mask"], a["key_padding_mask"]):
            if mask is None:
                continue
            if mask is a["key_padding_mask"]:
                mask = mask[:, None, None]
            elif mask.dim() == 3:
                mask = mask.reshape(-1, heads, *mask.shape[1:])
            logits = logits.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else logits + mask
        p = self._softmax(logits)
        mixed = (p @ v).permute(2, 0, 1, 3).flatten(2)
        shown = (p.mean(1) if a["average_attn_weights"] else p) if a["need_weights"] else None
        return F.linear(mixed, a["out_proj_weight"], a["out_proj_bias"]), shown

    def _layer_norm(
        self, x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        self.calls["norm"] += 1
        assert self.norm is not None
        scale = 2.0 ** math.ceil(math.log2(max(float(x.abs().max()), 1e-6) / 2**21))
        span = x.abs().amax(dim=tuple(range(x.dim() - 1))).double().cpu().numpy()
        y = _integer(NORMS[self.norm].run, x, span, scale)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias


def _is_plain(a: Mapping[str, Any]) -> bool:
    """Whether attention has packed weights, batches, and nothing that is added to keys."""
    rare = a["bias_k"], a["bias_v"], a["static_k"], a["static_v"]
    return (
        all(part is None for part in rare)
        and not (a["add_zero_attn"] or a["use_separate_proj_weight"])
        and a["query"].dim() == 3
        and not a["is_causal"]
    )


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
        self.inner = set_evaluating(copy.deepcopy(model))
        self.methods = (softmax, activation, norm)
        self.calls: dict[str, int] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's."""
        was = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it would not call the functions one by one
        try:
            with torch.no_grad(), InIntegers(*self.methods) as mode:
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
        Names of the tables; None leaves that kind alone.

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
        raise FewerError(f"{type(model).__name__} calls no softmax, GELU, SiLU or LayerNorm, so nothing was replaced")
    return made
