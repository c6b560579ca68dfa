"""A unit: one weight of the model on which a budget can be spent."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewer.core.errors import FewerError, near_match

__all__ = ["KINDS", "Unit"]

KINDS = ("linear", "conv1d", "conv2d", "conv3d", "function")


@dataclass(frozen=True)
class Unit:
    """One layer's weight: what can be pruned or given fewer bits on its own.

    Parameters
    ----------
    name
        Name of the module inside the model, for example ``"blocks.0.attn.qkv"``.
    kind
        ``"linear"``, ``"conv1d"``, ``"conv2d"``, ``"conv3d"`` or ``"function"`` (softmax, activation, norm).
    shape
        Shape of the weight, ``(out, in / groups, *kernel)``; of a function ``(width,)``.
    groups
        Groups of the convolution; 1 for a linear layer.
    positions
        How many output positions (tokens, pixels) of one input sample use the weight, summed over calls and aliases.
    aliases
        Further module names that share this very weight.

    Raises
    ------
    FewerError
        When the kind is unknown or a size is not positive.

    Examples
    --------
    >>> Unit("head", "linear", (10, 64)).macs
    640.0
    >>> Unit("stem", "conv2d", (8, 3, 3, 3), positions=16 * 16).rows
    8
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    groups: int = 1
    positions: float = 1.0
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.kind, str):
            raise FewerError(f"name and kind of a unit are text, not {self.name!r} and {self.kind!r}")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "aliases", tuple(self.aliases))
        if self.kind not in KINDS:
            raise FewerError(f"unit {self.name!r} has the unknown kind {self.kind!r}{near_match(self.kind, KINDS)}")
        dims = {"linear": 2, "function": 1}.get(self.kind) or 2 + int(self.kind[4])
        if len(self.shape) != dims or min(self.shape) < 1:
            raise FewerError(
                f"unit {self.name!r} of kind {self.kind!r} needs a weight of {dims} positive sizes, not {self.shape}"
            )
        if self.groups < 1 or not (math.isfinite(self.positions) and self.positions > 0):
            raise FewerError(
                f"unit {self.name!r} needs positive groups and positions, not {self.groups} and {self.positions}"
            )

    @property
    def numel(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def macs(self) -> float:
        """Multiply-accumulates that the dense weight costs per input sample (FLOPs are twice this number)."""
        return self.numel * self.positions

    @property
    def rows(self) -> int:
        """Rows of the weight seen as a matrix: output channels."""
        return self.shape[0]

    @property
    def cols(self) -> int:
        """Columns of the weight seen as a matrix: inputs that one output reads."""
        return self.numel // self.rows
