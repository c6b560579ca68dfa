"""The forward pass of an integer transformer on native kernels: the integers of ``transformer.run``, in less time.

Functions of one integer (the exponential of a softmax, an activation with the rounding behind it) become tables, which
the specification itself fills. Products of bytes are those of torch, or of single precision where every sum is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fewer.approximate.activation import ACTIVATIONS
from fewer.approximate.exponential import exponential_lines
from fewer.approximate.norm import channel_shifts
from fewer.approximate.softmax import EXPONENTIALS, SOFTMAXES
from fewer.approximate.transformer import INNER, Affine, Block, IntegerTransformer
from fewer.kernels.integers import (
    Exponential,
    Lookup,
    Scaling,
    has_integer_kernels,
    integer_norm,
    integer_softmax,
    rescaled,
)

__all__ = ["NativeTransformer", "activation_table", "exponential_of", "native_twin"]

_FAR = 1 << 14  # beyond 16 and beyond -16 at the inner scale an activation is a line, or nothing
_BYTES = 127
_EXACT = 2**24  # of single precision


@lru_cache(maxsize=8)
def exponential_of(method: str) -> Exponential | None:
    """Exponentials of logits that are 0, 1, ... below the largest one; None for a softmax that is not made of them.

    Examples
    --------
    >>> table = exponential_of("shift").table
    >>> round(float(table[1024] / table[0]), 2)
    0.39
    """
    if method not in EXPONENTIALS:
        return None
    below = np.arange(32 << 10, dtype=np.int64)
    found = EXPONENTIALS[method](0 - below, INNER)[0]
    last = int(np.flatnonzero(found != found[-1])[-1]) + 1
    table = torch.from_numpy(found[: last + 1].astype(np.int32))
    if method != "table":
        return Exponential(table)
    halving, slopes, intercepts = exponential_lines(INNER)
    return Exponential(table, halving, torch.tensor(slopes).int(), torch.tensor(intercepts).int())


def activation_table(block: Block) -> Lookup | None:
    """The activation of a block with the rounding to bytes behind it; None where it does not end in two constants.

    Examples
    --------
    >>> from fewer.approximate.transformer import Choice
    >>> none = Affine(np.array([1]), np.array([0]), 4)
    >>> block = Block(Choice(), *[none] * 1, None, *[none] * 3, None, none, none, None, none, none, None, none)
    >>> int(activation_table(block).table[-1])
    127
    """

    def run(q: np.ndarray) -> np.ndarray:
        y, _ = ACTIVATIONS[block.choice.activation].run(q, INNER, block.spans.get("activation"))
        return block.after_activation(y)

    far = 1 << np.arange(14, 31, dtype=np.int64)
    low, high = run(0 - far), run(far)
    if (low != low[0]).any() or high[-1] != high[-2]:
        return None
    end = int(far[np.flatnonzero(high != high[-1])[-1] + 1]) if (high != high[-1]).any() else _FAR
    found = run(np.arange(0 - _FAR, end + 1, dtype=np.int64))
    if end > 1 << 20 or found[-1] != high[-1] or found[0] != low[0]:
        return None
    change = np.flatnonzero(np.diff(found))
    first, last = (int(change[0]), int(change[-1]) + 1) if len(change) else (0, 0)
    return Lookup(torch.from_numpy(found[first : last + 1].astype(np.int8)), first - _FAR)


@dataclass(frozen=True, eq=False)
class _Layer:
    """Weights of bytes [inputs, outputs], and the scale behind their product."""

    weight: Tensor
    scaling: Scaling

    def product(self, x: Tensor) -> Tensor:
        return torch._int_mm(x, self.weight)  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class _Block:
    block: Block
    norm1: Scaling
    norm2: Scaling
    powers: tuple[Tensor | None, Tensor | None]
    qkv: _Layer
    logits: Scaling
    exponential: Exponential | None
    heads_out: Scaling
    proj: _Layer
    fc1: _Layer
    activation: Lookup
    fc2: _Layer


def _scaling(affine: Affine, width: int, repeat: int = 1) -> Scaling | None:
    """The factors of an affine step for each of ``width`` columns; None where they do not fit into 32 bits."""
    multiply = np.repeat(np.broadcast_to(affine.multiply.reshape(-1), width // repeat), repeat)
    add = np.repeat(np.broadcast_to(np.asarray(affine.add, dtype=np.int64).reshape(-1), width // repeat), repeat)
    if np.abs(multiply).max() >= 2**31 or not 0 <= affine.shift <= 62:
        return None
    return Scaling(torch.from_numpy(multiply.astype(np.int32)), torch.from_numpy(add.copy()), affine.shift)


def _layer(weight: np.ndarray, affine: Affine, repeat: int = 1) -> _Layer | None:
    scaling = _scaling(affine, weight.shape[1], repeat)
    # what all inputs together can make of an output
    largest = (_BYTES + 1) * np.abs(weight.astype(np.int64)).sum(0)
    if scaling is None or not _fits(scaling, torch.from_numpy(largest)):
        return None
    return _Layer(torch.from_numpy(np.ascontiguousarray(weight)), scaling)


def _fits(scaling: Scaling, largest: int | Tensor) -> bool:
    """Whether results of accumulators up to a size stay in 31 bits, and what is in between in 62."""
    product = scaling.multiply.abs().double() * largest + scaling.add.abs().double()
    return bool((product < 2.0**62).all()) and bool((product / 2.0**scaling.shift < 2.0**30).all())


def _prepared(block: Block, heads: int, residual: float) -> _Block | None:
    width = block.qkv.shape[0]
    activation = activation_table(block)
    powers: list[Tensor | None] = []
    for name in ("norm1", "norm2"):
        span = block.spans.get(name)
        byte = block.choice.norm == "factor-layer-norm" and span is not None
        powers.append(torch.from_numpy(channel_shifts(np.asarray(span), residual).astype(np.int32)) if byte else None)
    layers = (
        _layer(block.qkv, block.heads_in),
        _layer(block.proj, block.after_proj),
        _layer(block.fc1, block.before_activation),
        _layer(block.fc2, block.after_fc2),
    )
    norms = _scaling(block.norm1, width), _scaling(block.norm2, width)
    logits, out = _scaling(block.logits, heads), _scaling(block.heads_out, width, width // heads)
    if activation is None or any(one is None for one in (*layers, *norms, logits, out)):
        return None
    if width // heads * _BYTES**2 >= _EXACT or not _fits(logits, width // heads * _BYTES**2):  # type: ignore[arg-type]
        return None
    qkv, proj, fc1, fc2 = layers
    exponential = exponential_of(block.choice.softmax)
    return _Block(block, *norms, (powers[0], powers[1]), qkv, logits, exponential, out, proj, fc1, activation, fc2)  # type: ignore[arg-type]


def native_twin(net: IntegerTransformer) -> NativeTransformer | None:
    """A transformer on native kernels; None where they are not built, or cannot give the very same integers.

    Parameters
    ----------
    net
        Its constants.
    """
    if not has_integer_kernels() or net.norm != "layer-norm":
        return None
    blocks = [_prepared(block, net.heads, net.residual) for block in net.blocks]
    embed = _layer(net.embed, net.after_embed)
    last = _scaling(net.after_norm, net.position.shape[1])
    if embed is None or last is None or any(b is None for b in blocks):
        return None
    return NativeTransformer(net, embed, tuple(blocks), last)  # type: ignore[arg-type]


class NativeTransformer:
    """See :func:`native_twin`."""

    def __init__(self, net: IntegerTransformer, embed: _Layer, blocks: tuple[_Block, ...], last: Scaling) -> None:
        self.net, self._embed, self._blocks, self._last = net, embed, blocks, last

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """What :func:`fewer.approximate.transformer.run` gives for the same pixels.

        Parameters
        ----------
        pixels
            ``[N, 3, side, side]``, 0 to 255.
        """
        with torch.inference_mode():
            x, tokens = self._tokens(torch.from_numpy(np.ascontiguousarray(pixels)))
            for block in self._blocks:
                x = self._attention(block, x, len(pixels), tokens)
                x = _mlp(block, x)
            y = integer_norm(x, self._last, wide=True)
        return y.view(len(pixels), tokens, -1).numpy().astype(np.int64)

    def _tokens(self, pixels: Tensor) -> tuple[Tensor, int]:
        n, colours, side, _ = pixels.shape
        patch, grid = self.net.patch, side // self.net.patch
        x = (pixels - 128).to(torch.int8).view(n, colours, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
        position = torch.from_numpy(self.net.position.astype(np.int32))
        places = position[1:].expand(n, -1, -1).reshape(n * grid * grid, -1)
        x = rescaled(
            self._embed.product(x.reshape(n * grid * grid, -1)), self._embed.scaling, residual=places.contiguous()
        )
        x = torch.cat([position[:1].expand(n, 1, -1), x.view(n, grid * grid, -1)], 1)
        return x.reshape(-1, x.shape[-1]), x.shape[1]

    def _attention(self, b: _Block, x: Tensor, n: int, tokens: int) -> Tensor:
        heads, width = self.net.heads, x.shape[1]
        y = integer_norm(x, b.norm1, powers=b.powers[0])
        y = rescaled(b.qkv.product(y), b.qkv.scaling)
        # sums of bytes over the width of a head are exact in single precision, and faster than in integers
        q, k, v = y.view(n, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).float()
        logits = (q @ k.transpose(-2, -1)).to(torch.int32)
        if b.exponential is None:
            scaled = b.block.logits(logits.numpy().astype(np.int64))
            p = torch.from_numpy(SOFTMAXES[b.block.choice.softmax].run(scaled, INNER, None)[0]).float()
        else:
            rows = integer_softmax(logits.view(-1, tokens), b.logits, b.exponential, tokens)
            p = rows.view(n, heads, tokens, tokens).float()
        # the probabilities of a row are about 2**16 together, so that no sum reaches 2**24
        mixed = (p @ v).to(torch.int32).transpose(1, 2).reshape(n * tokens, width)
        return rescaled(b.proj.product(rescaled(mixed, b.heads_out)), b.proj.scaling, residual=x)


def _mlp(b: _Block, x: Tensor) -> Tensor:
    y = integer_norm(x, b.norm2, powers=b.powers[1])
    y = rescaled(b.fc1.product(y), b.fc1.scaling, lookup=b.activation)
    return rescaled(b.fc2.product(y), b.fc2.scaling, residual=x)
