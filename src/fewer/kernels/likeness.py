"""Transformer blocks written in another way than timm's: found by what they hold, proved by what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewer.kernels.transformer import NativeBlock, activation_of

__all__ = ["Likeness", "StandIn", "candidates_of", "find_likenesses", "same_as", "without_shortcuts"]

_HEADS = ("num_heads", "heads", "n_heads", "nhead", "num_attention_heads", "n_head")
_ACTIVATIONS: dict[str, nn.Module] = {
    "gelu": nn.GELU(),
    "relu": nn.ReLU(),
    "gelu_tanh": nn.GELU("tanh"),
    "silu": nn.SiLU(),
}


class _Part(nn.Module):
    num_heads: int


@dataclass(frozen=True, eq=False)
class Likeness:
    """A module that may be a pre-norm transformer block, in the form that the native kernel knows.

    Attributes
    ----------
    block
        The same weights under timm's names; it has no forward pass of its own.
    names
        Path in ``block`` -> names in the module of the layers that it is made of, one or, for ``attn.qkv``, three. A
        projection that is no layer has none.
    """

    block: nn.Module
    names: dict[str, tuple[str, ...]]


class StandIn(nn.Module):
    """A native block in the place of another one. Masks and other arguments go to the original.

    Parameters
    ----------
    native
        What runs.
    original
        What it stands for; its other attributes can still be read.
    """

    def __init__(self, native: nn.Module, original: nn.Module) -> None:
        super().__init__()
        self.native = native
        self._kept = (original,)  # in a tuple: no submodule, whose weights would be counted twice

    def forward(self, x: Tensor, *others: Any, **named: Any) -> Any:
        """Like the original, in inference."""
        if any(value is not None and value is not False for value in (*others, *named.values())) or x.ndim != 3:
            return self._kept[0](x, *others, **named)
        return self.native(x)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_kept"][0], name)


def without_shortcuts(model: nn.Module) -> nn.Module:
    """Make ``nn.TransformerEncoderLayer`` call its layers: its own fast path reads weights that a kernel has not.

    Changed in place.

    Examples
    --------
    >>> layer = without_shortcuts(nn.TransformerEncoderLayer(8, 2))
    >>> bool(layer.activation_relu_or_gelu)
    False
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # the fast path knows these two, and is not taken for others
    return model


def find_likenesses(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that hold what a block holds: two LayerNorms and the layers of one attention and one MLP.

    Examples
    --------
    >>> list(find_likenesses(nn.Sequential(nn.TransformerEncoderLayer(8, 2, norm_first=True, batch_first=True))))
    ['0']
    """
    found = {n: m for n, m in model.named_modules() if n and next(candidates_of(m), None) is not None}
    # of a block and what holds nothing but that block, the block
    return {n: m for n, m in found.items() if not any(other.startswith(f"{n}.") for other in found)}


def candidates_of(module: nn.Module) -> Iterator[Likeness]:
    """Forms that a module may have; only a comparison of outputs tells which is right, if any."""
    norms = [m for m in module.modules() if isinstance(m, nn.LayerNorm)]
    if len(norms) != 2 or any(n.weight is None or n.bias is None or len(n.normalized_shape) != 1 for n in norms):
        return
    if any(isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Embedding) for m in module.modules()):
        return
    width = norms[0].normalized_shape[0]
    parts = _attention_parts(module, width)
    if parts is None:
        return
    qkv, proj, names, rest, heads = parts
    if len(rest) != 2:
        return
    (up, fc1), (down, fc2) = rest
    if fc1.in_features != width or fc2.out_features != width or fc1.out_features != fc2.in_features:
        return
    own = [a for m in module.modules() if (a := activation_of(m)) is not None]
    for activation in own or _ACTIVATIONS:
        if activation not in _ACTIVATIONS:
            continue
        block, attn, mlp = _Part(), _Part(), _Part()
        attn.qkv, attn.proj, attn.num_heads = qkv, proj, heads
        mlp.fc1, mlp.act, mlp.fc2 = fc1, _ACTIVATIONS[activation], fc2
        block.norm1, block.attn, block.norm2, block.mlp = norms[0], attn, norms[1], mlp
        yield Likeness(block.eval(), {**names, "mlp.fc1": (up,), "mlp.fc2": (down,)})


def _attention_parts(module: nn.Module, width: int) -> Any:
    """The joint projection, the one after attention, their names, the other linear layers, and the number of heads."""
    inside = dict(module.named_modules())
    joint = [(n, m) for n, m in inside.items() if isinstance(m, nn.MultiheadAttention)]
    prefix = f"{joint[0][0]}." if joint else "\0"
    linear = [(n, m) for n, m in inside.items() if isinstance(m, nn.Linear) and not n.startswith(prefix)]
    if joint:
        attention = joint[0][1]
        plain = attention.batch_first and attention._qkv_same_embed_dim and attention.bias_k is None
        if len(joint) > 1 or not plain or attention.add_zero_attn or len(linear) != 2:
            return None
        qkv = _linear(attention.in_proj_weight, attention.in_proj_bias)
        return qkv, attention.out_proj, {"attn.qkv": (), "attn.proj": ()}, linear, attention.num_heads
    heads = next(
        (h for m in inside.values() for n in _HEADS if isinstance(h := getattr(m, n, None), int) and h > 0), None
    )
    if heads is None or width % heads or len(linear) not in (4, 6):
        return None
    if len(linear) == 4:
        (a, qkv), (b, proj), *rest = linear
        if tuple(qkv.weight.shape) != (3 * width, width) or tuple(proj.weight.shape) != (width, width):
            return None
        return qkv, proj, {"attn.qkv": (a,), "attn.proj": (b,)}, rest, heads
    three, (b, proj), rest = linear[:3], linear[3], linear[4:]
    if any(tuple(m.weight.shape) != (width, width) for _, m in (*three, (b, proj))):
        return None
    biases = [m.bias for _, m in three]
    if all(bias is None for bias in biases):
        bias = None
    else:
        bias = torch.cat([torch.zeros(width) if part is None else part.detach() for part in biases])
    qkv = _linear(torch.cat([m.weight.detach() for _, m in three]), bias)
    return qkv, proj, {"attn.qkv": tuple(n for n, _ in three), "attn.proj": (b,)}, rest, heads


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return made


def same_as(module: nn.Module, likeness: Likeness, x: Tensor) -> float:
    """How far a likeness in fp32 is from a module on real tokens, relative to what the module changes."""
    native = NativeBlock.from_block(likeness.block, {}, "fp32")
    with torch.inference_mode():
        expected = module(x)
        if not isinstance(expected, Tensor) or expected.shape != x.shape:
            return float("inf")
        return float((native(x) - expected).norm() / (expected - x).norm().clamp_min(1e-12))
