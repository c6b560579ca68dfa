"""A unit: one weight tensor that a budget can be spent on."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """One prunable weight tensor.

    Parameters
    ----------
    name : str
        Name of the module that owns the weight, for example ``blocks.0.attn.qkv``.
    kind : str
        ``linear``, ``conv1d``, ``conv2d`` or ``conv3d``.
    shape : tuple of int
        Weight shape: (out, in / groups, *kernel).
    groups : int
        Convolution groups; 1 for a linear layer.
    positions : float
        At how many output positions (tokens, pixels) one input sample uses the weight,
        summed over calls and aliases.
    aliases : tuple of str
        Other module names that share this very weight.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    groups: int = 1
    positions: float = 1.0
    aliases: tuple[str, ...] = ()

    @property
    def numel(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def macs(self) -> float:
        """Multiply-accumulates for one input sample."""
        return self.numel * self.positions

    @property
    def rows(self) -> int:
        """Rows of the weight seen as a matrix (output channels)."""
        return self.shape[0]

    @property
    def cols(self) -> int:
        """Columns of the weight seen as a matrix (inputs per output)."""
        return self.numel // self.rows
