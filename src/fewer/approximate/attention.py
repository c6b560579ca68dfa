"""Attention with a softmax of one's own, called with the arguments of torch's functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dot_product_attention", "multi_head_attention"]

Softmax = Callable[[Tensor], Tensor]


def dot_product_attention(
    softmax: Softmax,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As ``scaled_dot_product_attention``, without dropout.

    Examples
    --------
    >>> x = torch.randn(1, 2, 3, 4)
    >>> ours = dot_product_attention(lambda logits: logits.softmax(-1), x, x, x)
    >>> torch.allclose(ours, F.scaled_dot_product_attention(x, x, x), atol=1e-5)
    True
    """
    if enable_gqa:  # heads of queries share those of keys and values
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = query @ key.transpose(-2, -1) * factor
    if is_causal:
        keep = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        logits = logits.masked_fill(~keep, -math.inf)
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        logits = logits.masked_fill(~attn_mask, -math.inf) if is_bool else logits + attn_mask
    return softmax(logits) @ value


def multi_head_attention(softmax: Softmax, a: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """As ``multi_head_attention_forward``, without dropout.

    Parameters
    ----------
    softmax
        Over the last dimension.
    a
        Its arguments by name, with the defaults.
    """
    heads, batched = a["num_heads"], a["query"].dim() == 3
    q, k, v = _projected(a, batched)  # [tokens, batch, width]
    count = q.shape[1]
    more = 0
    if a["bias_k"] is not None and a["bias_v"] is not None:
        k, v = (torch.cat([t, a[b].repeat(1, count, 1)]) for t, b in ((k, "bias_k"), (v, "bias_v")))
        more += 1

    def split(x: Tensor) -> Tensor:  # to [batch, heads, tokens, width of a head]
        return x.reshape(x.shape[0], x.shape[1], heads, -1).permute(1, 2, 0, 3)

    q, k, v = split(q), split(k), split(v)
    k, v = (
        t if a[s] is None else a[s].view(count, heads, *a[s].shape[1:]) for t, s in ((k, "static_k"), (v, "static_v"))
    )
    if a["add_zero_attn"]:
        k, v = (torch.cat([t, torch.zeros_like(t[:, :, :1])], 2) for t in (k, v))
        more += 1
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    for mask in _masks(a, heads, batched):
        mask = F.pad(mask, (0, more))  # what is added to keys may be seen
        logits = logits.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else logits + mask
    p = softmax(logits)
    mixed = (p @ v).permute(2, 0, 1, 3).flatten(2)
    mixed = F.linear(mixed, a["out_proj_weight"], a["out_proj_bias"])
    shown = (p.mean(1) if a["average_attn_weights"] else p) if a["need_weights"] else None
    if batched:
        return mixed, shown
    return mixed.squeeze(1), None if shown is None else shown.squeeze(0)


def _projected(a: Mapping[str, Any], batched: bool) -> tuple[Tensor, ...]:
    """Queries, keys and values from packed weights, or from those of each."""
    if a["use_separate_proj_weight"]:
        weights = a["q_proj_weight"], a["k_proj_weight"], a["v_proj_weight"]
    else:
        weights = a["in_proj_weight"].chunk(3)
    biases = (None,) * 3 if a["in_proj_bias"] is None else a["in_proj_bias"].chunk(3)
    sides = (a[name] if batched else a[name].unsqueeze(1) for name in ("query", "key", "value"))
    return tuple(F.linear(x, w, b) for x, w, b in zip(sides, weights, biases, strict=True))


def _masks(a: Mapping[str, Any], heads: int, batched: bool) -> list[Tensor]:
    """As they are laid over [batch, heads, queries, keys]; ``is_causal`` only says what the mask is."""
    found = []
    if (mask := a["attn_mask"]) is not None:
        found.append(mask.reshape(-1, heads, *mask.shape[1:]) if mask.dim() == 3 else mask)
    if (mask := a["key_padding_mask"]) is not None:
        found.append((mask if batched else mask.unsqueeze(0))[:, None, None])
    return found
