"""Convolution on the occupied sites of a grid: rulebooks, the product over them, and the layers that hold a weight."""

from fewer.models.sparse.layers import (
    SparseConv3d,
    SparseConvolution,
    SparseInverseConv3d,
    SparseSequential,
    SubMConv3d,
)
from fewer.models.sparse.rulebook import Rulebook, inverse_rules, strided_rules, submanifold_rules
from fewer.models.sparse.sites import Sites

__all__ = [
    "Rulebook",
    "Sites",
    "SparseConv3d",
    "SparseConvolution",
    "SparseInverseConv3d",
    "SparseSequential",
    "SubMConv3d",
    "inverse_rules",
    "strided_rules",
    "submanifold_rules",
]
