"""A Vision Transformer whose whole forward pass is integer arithmetic: weights and activations in 8 bits.

What is specified is :func:`run`: the integers that it returns are the result, on NumPy and in the exported graph.
Floating point is used while the constants are made, and by whoever multiplies the result by its scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fewer.approximate.activation import ACTIVATIONS
from fewer.approximate.arithmetic import Integers, clip, product, unsigned
from fewer.approximate.norm import NORMS
from fewer.approximate.softmax import BITS, SOFTMAXES
from fewer.core.errors import FewerError

__all__ = ["Affine", "Block", "Choice", "IntegerTransformer", "run"]

INNER = 2.0**-10
"""Scale of what goes into softmax and activation."""


@dataclass(frozen=True)
class Affine:
    """``(x * multiply + add) >> shift``, limited to 8 bits where ``byte``; channel by channel, or head by head."""

    multiply: np.ndarray
    add: np.ndarray
    shift: int
    byte: bool = True

    def __call__(self, x: Integers) -> Integers:
        y = (x * self.multiply + self.add) >> self.shift
        return clip(y, -127, 127) if self.byte else y


@dataclass(frozen=True)
class Choice:
    """Which approximation stands at the softmax, the activation and the norms of one block."""

    softmax: str = SOFTMAXES.default
    activation: str = ACTIVATIONS.default
    norm: str = NORMS.default


@dataclass(frozen=True)
class Block:
    """Constants of one block; weights are ``[inputs, outputs]`` in int8.

    ``norm1``, ``norm2`` hold the affine part and the rounding to bytes; ``heads_in`` rounds queries, keys and values,
    ``logits`` scales the products of queries and keys to :data:`INNER`, ``heads_out`` rounds what attention mixed.
    ``proj`` and ``fc2`` end in units of the residual stream, with layer scale in them. ``spans`` are calibration's.
    """

    choice: Choice
    norm1: Affine
    qkv: np.ndarray
    heads_in: Affine
    logits: Affine
    heads_out: Affine
    proj: np.ndarray
    after_proj: Affine
    norm2: Affine
    fc1: np.ndarray
    before_activation: Affine
    after_activation: Affine
    fc2: np.ndarray
    after_fc2: Affine
    spans: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IntegerTransformer:
    """All constants of the network; see :func:`fewer.approximate.compile.compile_transformer`.

    Attributes
    ----------
    patch
        Side of a patch in pixels.
    heads
        Of attention.
    embed
        Patch weights ``[3 * patch * patch, width]`` in int8.
    after_embed
        To units of the residual stream.
    position
        ``[1 + patches, width]`` in those units; the class token is in its first row.
    residual
        Scale of the residual stream, a power of two.
    blocks
        In order.
    norm
        Which norm ends the network.
    after_norm
        Its affine part.
    scale
        Of the result.
    quicken
        Makes what computes the same integers in less time, or None; see
        :func:`fewer.approximate.native.native_twin`.
    """

    patch: int
    heads: int
    embed: np.ndarray
    after_embed: Affine
    position: np.ndarray
    residual: float
    blocks: tuple[Block, ...]
    norm: str
    after_norm: Affine
    scale: float
    quicken: Callable[[IntegerTransformer], Callable[[np.ndarray], np.ndarray] | None] | None = None

    @property
    def side(self) -> int:
        """Of the images that the positions are for, in pixels."""
        return self.patch * math.isqrt(len(self.position) - 1)

    def with_choices(self, choices: Mapping[int, Choice]) -> IntegerTransformer:
        """The same constants with other approximations in some blocks.

        What follows a softmax, activation or norm expects its scale, so that only methods of one output scale can take
        each other's place here; :func:`~fewer.approximate.compile.compile_transformer` has no such limit.
        """
        blocks = [replace(b, choice=choices.get(i, b.choice)) for i, b in enumerate(self.blocks)]
        return replace(self, blocks=tuple(blocks))

    @cached_property
    def _quick(self) -> Callable[[np.ndarray], np.ndarray] | None:
        return None if self.quicken is None else self.quicken(self)

    def integers(self, pixels: np.ndarray) -> np.ndarray:
        """What :func:`run` gives for pixels 0 to 255, on native kernels where they are built: the same integers."""
        pixels = self._checked(pixels)
        quick = self._quick if pixels.size and pixels.min() >= 0 and pixels.max() <= 255 else None
        return run(self, pixels) if quick is None else quick(pixels)

    def _checked(self, pixels: np.ndarray) -> np.ndarray:
        """As int64, in the one shape that the positions are for."""
        given = np.asarray(pixels)
        side = self.side
        if given.shape[1:] != (3, side, side) or given.ndim != 4:
            raise FewerError(f"pixels are [N, 3, {side}, {side}] for this network; got {list(given.shape)}")
        whole = given.astype(np.int64)
        if given.dtype.kind not in "iub" and not np.array_equal(whole, given):
            raise FewerError("pixels are integers from 0 to 255; these have parts behind the point (multiply by 255?)")
        return whole

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Tokens [N, 1 + patches, width] as numbers: :meth:`integers` times the scale of the result."""
        return self.integers(pixels) * self.scale


def run(net: IntegerTransformer, pixels: Integers) -> Integers:
    """The forward pass on integers.

    Parameters
    ----------
    net
        Constants.
    pixels
        ``[N, 3, side, side]``, 0 to 255.

    Returns
    -------
    Integers [N, 1 + patches, width]
        Normalised tokens in units of ``net.scale``, the class token first.
    """
    n, colours, side, _ = pixels.shape
    grid, patch = side // net.patch, net.patch
    x = pixels.reshape(n, colours, grid, patch, grid, patch).transpose(0, 2, 4, 1, 3, 5)
    x = product(x.reshape(n, grid * grid, colours * patch * patch) - 128, net.embed)
    x = net.after_embed(x) + net.position[1:]
    x = _with_class_token(x, net.position[:1], n)
    for block in net.blocks:
        x = x + _attention(block, net.heads, net.residual, x)
        x = x + _mlp(block, net.residual, x)
    y, _ = NORMS[net.norm].run(x, net.residual, None)
    return net.after_norm(y)


def _with_class_token(x: Integers, token: np.ndarray, n: int) -> Integers:
    if isinstance(x, np.ndarray):
        return np.concatenate([np.broadcast_to(token, (n, 1, token.shape[-1])), x], axis=1)
    return x.after(token)


def _attention(block: Block, heads: int, residual: float, x: Integers) -> Integers:
    n, tokens, width = x.shape
    y, _ = NORMS[block.choice.norm].run(x, residual, block.spans.get("norm1"))
    y = block.heads_in(product(block.norm1(y), block.qkv))
    y = y.reshape(n, tokens, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
    q, k, v = y[0], y[1], y[2]
    logits = block.logits(product(q, k.transpose(0, 1, 3, 2)))
    p, _ = SOFTMAXES[block.choice.softmax].run(logits, INNER, None)
    # probabilities have 16 bits: two products of 8 bits
    high = unsigned(p >> (BITS // 2))
    mixed = (product(high, v) << (BITS // 2)) + product(unsigned(p - (high << (BITS // 2))), v)
    mixed = block.heads_out(mixed).transpose(0, 2, 1, 3).reshape(n, tokens, width)
    return block.after_proj(product(mixed, block.proj))


def _mlp(block: Block, residual: float, x: Integers) -> Integers:
    y, _ = NORMS[block.choice.norm].run(x, residual, block.spans.get("norm2"))
    y = block.before_activation(product(block.norm2(y), block.fc1))
    y, _ = ACTIVATIONS[block.choice.activation].run(y, INNER, block.spans.get("activation"))
    return block.after_fc2(product(block.after_activation(y), block.fc2))
