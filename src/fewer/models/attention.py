"""Attention whose projections are layers: ``nn.MultiheadAttention`` uses weights that no hook and no kernel meets."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PlainAttention", "open_attention"]


class PlainAttention(nn.Module):
    """``nn.MultiheadAttention`` with its joint projection as a linear layer: the same call, the same output.

    Parameters
    ----------
    source
        What it is made of; its parameters are taken over, not copied.

    Notes
    -----
    PyTorch's fused encoder path stays open as long as both projections are plain linear layers: it reads the names
    that ``nn.MultiheadAttention`` has.

    Examples
    --------
    >>> source = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    >>> x = torch.randn(1, 5, 8)
    >>> expected = source(x, x, x)[0]
    >>> torch.allclose(PlainAttention(source)(x, x, x)[0], expected, atol=1e-6)
    True
    """

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = source.embed_dim, source.num_heads, source.head_dim
        self.batch_first, self.dropout = source.batch_first, source.dropout
        weight: Any = source.in_proj_weight
        self.in_proj = nn.Linear(1, 1, bias=False, device="meta")
        self.in_proj.in_features, self.in_proj.out_features = weight.shape[1], weight.shape[0]
        self.in_proj.weight = weight
        self.in_proj.register_parameter("bias", source.in_proj_bias)
        self.out_proj: Any = source.out_proj
        self.train(source.training)

    merge_masks = nn.MultiheadAttention.merge_masks
    """Called by the fused encoder path; needs nothing but the number of heads."""

    @property
    def in_proj_weight(self) -> Tensor:
        """The joint weight, under the name that ``nn.TransformerEncoderLayer`` reads."""
        return self.in_proj.weight

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The joint bias, under the name that ``nn.TransformerEncoderLayer`` reads."""
        return getattr(self.in_proj, "bias", None)  # a kernel in its place has none

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """Read by PyTorch before its fused path, which takes the weights and calls no layer."""
        return isinstance(self.in_proj, nn.Linear) and isinstance(self.out_proj, nn.Linear)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Also take a state of ``nn.MultiheadAttention``, whose joint projection has other names."""
        for part in ("weight", "bias"):
            if (old := f"{prefix}in_proj_{part}") in state_dict:
                state_dict[f"{prefix}in_proj.{part}"] = state_dict.pop(old)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention.forward``."""
        single, same = query.dim() == 2, query is key and key is value
        sides = [query] if same else [query, key, value]
        sides = [s[None] if single else s if self.batch_first else s.transpose(0, 1) for s in sides]
        q, k, v = (self._heads(part) for part in self._project(sides))
        if key_padding_mask is not None and single:
            key_padding_mask = key_padding_mask[None]
        # a hint only: with other masks or weights to show, the mask itself is needed
        hint = is_causal and key_padding_mask is None and not need_weights
        mask = None if hint else _joined(attn_mask, key_padding_mask, q)
        rate = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q / math.sqrt(self.head_dim)) @ k.transpose(-2, -1)
            weights = F.dropout(F.softmax(scores if mask is None else scores + mask, dim=-1), rate, self.training)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights[0] if single else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, rate, hint)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return (out[0] if single else out if self.batch_first else out.transpose(0, 1)), weights

    def _project(self, sides: list[Tensor]) -> tuple[Tensor, ...]:
        if len(sides) == 1:
            return self.in_proj(sides[0]).chunk(3, dim=-1)
        biases = (None,) * 3 if self.in_proj.bias is None else self.in_proj.bias.chunk(3)
        return tuple(map(F.linear, sides, self.in_proj.weight.chunk(3), biases))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


def _joined(attention: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """What is added to the scores, shape (batch or 1, heads or 1, queries or 1, keys), of both masks."""
    found = None
    if attention is not None:
        found = _added(attention, q)
        found = found.view(len(q), -1, *found.shape[1:]) if found.dim() == 3 else found[None, None]
    if padding is not None:
        more = _added(padding, q)[:, None, None]
        found = more if found is None else found + more
    return found


def _added(mask: Tensor, q: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(q.dtype)
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, -math.inf)


def open_attention(model: nn.Module) -> list[str]:
    """Put :class:`PlainAttention` in the place of every ``nn.MultiheadAttention`` with one weight for all projections.

    Subclasses stay as they are, as do forms with other widths of keys or with rows that are added to keys.

    Parameters
    ----------
    model
        Changed in place; the model itself may not be such a module.

    Returns
    -------
    list of str
        Names of what was replaced.

    Examples
    --------
    >>> net = nn.TransformerEncoderLayer(8, 2, 16)
    >>> open_attention(net), [name for name, _ in net.self_attn.named_children()]
    (['self_attn'], ['in_proj', 'out_proj'])
    """
    made: dict[int, PlainAttention] = {}
    names = []
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if not name or not _is_plain(module):
            continue
        parent, _, own = name.rpartition(".")
        if id(module) not in made:
            made[id(module)] = PlainAttention(module)  # type: ignore[arg-type]
        model.get_submodule(parent)._modules[own] = made[id(module)]
        names.append(name)
    return names


def _is_plain(module: nn.Module) -> bool:
    if type(module) is not nn.MultiheadAttention or module._forward_hooks or module._forward_pre_hooks:
        return False
    rare = module.bias_k, module.bias_v
    return module._qkv_same_embed_dim and not module.add_zero_attn and all(part is None for part in rare)
