"""Layer-wise pruning as two well-known papers do it, written from their mathematics: what a result is held against.

Neither of them chooses how much each layer loses; here every layer loses the same share, as the papers have it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewer.compensate.moments import Moments
from fewer.compensate.solve import damp
from fewer.core.methods import Method, MethodTable
from fewer.patterns import Pattern, select_mask

__all__ = ["PUBLISHED", "PruneMatrix", "sparsegpt", "wanda"]

PruneMatrix = Callable[[Tensor, Moments, Pattern, float], Tensor]
"""``prune(rows, moments, pattern, sparsity)`` of one layer's weight, shape (groups, rows per group, columns)."""

_DAMPING = 0.01
"""SparseGPT's own share of the mean curvature."""
_WINDOW = 128
"""Columns whose masks SparseGPT chooses at once."""


def sparsegpt(weight: Tensor, hessian: Tensor, pattern: Pattern, sparsity: float, window: int = _WINDOW) -> Tensor:
    """Prune and update one matrix: each column's error is pushed to the columns on its right.

    Parameters
    ----------
    weight
        Shape (rows, columns).
    hessian
        Damped second moment of the input, shape (columns, columns).
    pattern
        Which weights may go together.
    sparsity
        Share of the weights that goes.
    window
        Columns whose masks are chosen at once, by ``w^2 / [H^-1]_jj`` of the columns that remain.

    Returns
    -------
    Tensor
        The pruned matrix; the input is not changed.

    Notes
    -----
    Frantar and Alistarh: SparseGPT (arXiv 2301.00774).

    Examples
    --------
    >>> weight, alike = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> sparsegpt(weight, alike, Pattern("unstructured"), 0.5)  # the second weight takes over a half of the first
    tensor([[0.0000, 2.5000]])
    """
    weight = weight.clone()
    keep = torch.ones_like(weight, dtype=torch.bool)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    for start in range(0, weight.shape[1], window):
        stop = min(start + window, weight.shape[1])
        part, scale = weight[:, start:stop], inverse.diagonal()[start:stop]
        mask = select_mask(part.square() / scale.square(), pattern, sparsity)
        keep[:, start:stop] = mask
        errors = torch.zeros_like(part)
        for j in range(stop - start):
            error = torch.where(mask[:, j], 0.0, part[:, j]) / scale[j]
            part[:, j:] -= error[:, None] * inverse[start + j, start + j : stop]
            errors[:, j] = error
        weight[:, stop:] -= errors @ inverse[start:stop, stop:]
    return weight * keep


def wanda(weight: Tensor, power: Tensor, pattern: Pattern, sparsity: float) -> Tensor:
    """Prune one matrix by ``|w|`` times the norm of its input, compared within each row; nothing is updated.

    Parameters
    ----------
    weight
        Shape (rows, columns).
    power
        Mean square of each input, shape (columns,).
    pattern
        Which weights may go together.
    sparsity
        Share of the weights that goes, rounded to whole weights of a row.

    Returns
    -------
    Tensor
        The pruned matrix; the input is not changed.

    Notes
    -----
    Sun et al.: A simple and effective pruning approach for large language models (arXiv 2306.11695).

    Examples
    --------
    >>> wanda(torch.tensor([[1.0, 2.0]]), torch.tensor([9.0, 1.0]), Pattern("unstructured"), 0.5)
    tensor([[1., 0.]])
    """
    score = weight.abs() * power.sqrt()
    if pattern.kind != "unstructured":
        return weight * select_mask(score, pattern, sparsity)
    drop = score.argsort(dim=1)[:, : round(sparsity * weight.shape[1])]
    return weight.scatter(1, drop, 0.0)


def _sparsegpt_layer(rows: Tensor, moments: Moments, pattern: Pattern, sparsity: float) -> Tensor:
    pruned = rows.clone()
    for i, block in enumerate(moments.blocks):  # one block, unless the layer is very wide
        for group, hessian in enumerate(damp(moments.second(i), _DAMPING)):
            pruned[group, :, block] = sparsegpt(rows[group, :, block], hessian, pattern, sparsity)
    return pruned


def _wanda_layer(rows: Tensor, moments: Moments, pattern: Pattern, sparsity: float) -> Tensor:
    powers = moments.diagonal()
    return torch.stack([wanda(one, power, pattern, sparsity) for one, power in zip(rows, powers, strict=True)])


PUBLISHED: MethodTable[PruneMatrix] = MethodTable(
    "published method",
    [
        Method("sparsegpt", _sparsegpt_layer, "the same share of every layer, errors pushed to the right", "SparseGPT"),
        Method("wanda", _wanda_layer, "the same share of every layer, by weight times input, no update", "Wanda"),
    ],
)
"""Methods of the literature that a report can show as rows of their own: ``--baselines wanda,sparsegpt``."""
