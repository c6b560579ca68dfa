"""The ways to run one layer, from which :func:`fewer.kernels.accelerate.accelerate` chooses by measurement."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fewer.kernels import native
from fewer.kernels.chains import DENSE
from fewer.kernels.dense import DenseBF16
from fewer.kernels.linear import BlockSparseLinear

__all__ = ["kept_blocks", "linear_candidates", "sparse_candidates"]


def linear_candidates(linear: nn.Linear, mask: Tensor | None, precision: str) -> dict[str, nn.Module]:
    """Every way to run a linear layer at ``precision`` or better, the dense fp32 one first.

    Examples
    --------
    >>> sorted(linear_candidates(nn.Linear(16, 16), None, "fp32"))[0]
    'dense fp32'
    """
    found: dict[str, nn.Module] = {DENSE: linear}
    if native.available():
        found[f"native {precision}"] = BlockSparseLinear.from_dense(linear, mask, precision, backend="native")
    elif mask is not None and (1 - float(mask.float().mean())) > 0.4:
        found["gather fp32"] = BlockSparseLinear.from_dense(linear, mask, "fp32", backend="gather")
    if precision != "fp32":
        found["dense bf16"] = DenseBF16(linear)
    return found


def sparse_candidates(layer: Any, mask: Tensor | None, precision: str) -> dict[str, nn.Module]:
    """Every way to run a sparse convolution, the one that it came with first.

    The native way multiplies the rows that an offset of the kernel gathers with that offset's blocks alone, and gathers
    nothing for an offset whose weights are all pruned.

    Parameters
    ----------
    layer
        With ``linears()`` and ``by_offset(products)``, see :class:`fewer.models.sparse.SparseConvolution`.
    mask
        In the weight's shape; all weights stay where it is None.
    precision
        Of the products.
    """
    found: dict[str, nn.Module] = {DENSE: layer}
    if native.available():
        linears = layer.linears()
        masks = [None] * len(linears) if mask is None else [m.contiguous() for m in mask.flatten(2).unbind(2)]
        made = [
            None if one is not None and not bool(one.any())
            else BlockSparseLinear.from_dense(linear, one, precision, backend="native")
            for linear, one in zip(linears, masks, strict=True)
        ]  # fmt: skip
        found[f"native {precision}"] = layer.by_offset(made)
    return found


def kept_blocks(layer: Any) -> float:
    """Share of the blocks of a sparse convolution that its kernels multiply with."""
    # a layer of fewer outputs than a block has rows stores more than its weight
    parts = [0.0 if one is None else min(1.0, one.packed().density) for one in layer.products]
    return sum(parts) / max(1, len(parts))
