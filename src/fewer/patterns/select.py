"""From scores to a mask that has exactly the sparsity asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewer.core.pattern import Pattern
from fewer.patterns.layout import channel_order
from fewer.patterns.tiles import expand_tiles, tile_counts, tile_sums

# A sparsity such as 0.3 is not exact in binary: 0.3 * 10 must still drop 3 weights, not 4.
_EPS = 1e-9


def drop_count(total: int, sparsity: float) -> int:
    """Weights that a sparsity drops of ``total``: rounded up, so that a budget of kept weights is never exceeded.

    Examples
    --------
    >>> drop_count(10, 0.3), drop_count(10, 0.31)
    (3, 4)
    """
    return min(total, math.ceil(total * sparsity - _EPS))


def kept_bound(rows: int, cols: int, pattern: Pattern, sparsity: float) -> int:
    """Return the most weights that :func:`select_mask` keeps; exact except for blocks on ragged shapes.

    Examples
    --------
    >>> kept_bound(32, 32, Pattern.parse("block:16x16"), 0.3)
    512
    """
    total, pattern = rows * cols, pattern.fitted(rows, cols)
    if pattern.kind == "dense" or sparsity <= 0:
        return total
    if pattern.kind == "nm":
        full, rest = divmod(cols, pattern.m)
        return rows * (full * pattern.n + math.ceil(rest * pattern.n / pattern.m))
    kept = total - drop_count(total, sparsity)
    if pattern.kind == "block" and rows % pattern.height == 0 and cols % pattern.width == 0:
        kept -= kept % (pattern.height * pattern.width)
    return kept


def select_mask(score: Tensor, pattern: Pattern, sparsity: float, alive: Tensor | None = None) -> Tensor:
    """Choose the weights to keep: those with the highest score, in units of the pattern's tile.

    Parameters
    ----------
    score
        Distortion of removing each weight, shape (rows, cols); or, for blocks, of each tile.
    pattern
        What may be removed together. Tiles are ranked by distortion per weight.
    sparsity
        Fraction of the matrix to remove, 0 to 1; rounded up to whole tiles. Not used by ``nm``.
    alive
        Weights that may be kept, shape (rows, cols), bool. Dead ones stay dead (nested masks) and count as removed.

    Returns
    -------
    Tensor
        Bool, shape (rows, cols), True where the weight is kept.

    Examples
    --------
    >>> select_mask(torch.tensor([[3.0, 1.0, 2.0, 4.0]]), Pattern.parse("unstructured"), 0.5)
    tensor([[ True, False, False,  True]])
    """
    # of blocks and columns, scores may be those of tiles
    rows, cols = alive.shape if pattern.kind in ("block", "columns") and alive is not None else score.shape
    if pattern.parts:
        return _select_parts(score, pattern, sparsity, rows, cols, alive)
    if pattern.taps > 1:
        order = channel_order(cols, pattern.taps)
        gathered = score[:, order] if score.shape == (rows, cols) else score
        left = None if alive is None else alive[:, order]
        mask = torch.empty(rows, cols, dtype=torch.bool, device=score.device)
        mask[:, order] = select_mask(gathered, pattern.fitted(rows, cols), sparsity, left)
        return mask
    pattern = pattern.fitted(rows, cols)
    tiled = pattern.kind == "block"
    if pattern.kind == "dense" or (sparsity <= 0 and pattern.kind != "nm"):
        return torch.ones(rows, cols, dtype=torch.bool, device=score.device) if alive is None else alive.clone()
    if pattern.kind == "nm":
        return _select_nm(score, pattern, alive)
    if not tiled:
        ranked = score if alive is None else score.masked_fill(~alive, -math.inf)
        drop = drop_count(score.numel(), sparsity)
        keep = torch.ones(rows * cols, dtype=torch.bool, device=score.device)
        keep[torch.topk(ranked.flatten(), drop, largest=False, sorted=False).indices] = False
        return keep.view(rows, cols) if alive is None else keep.view(rows, cols) & alive
    counts = tile_counts(rows, cols, pattern.height, pattern.width).to(score.device)
    distortion = score if score.shape == counts.shape else tile_sums(score, pattern.height, pattern.width)
    distortion = distortion / counts
    if alive is not None:
        dead = tile_sums(alive.float(), pattern.height, pattern.width) == 0
        distortion = distortion.masked_fill(dead, -math.inf)
    order = torch.argsort(distortion.flatten(), stable=True)
    removed = counts.flatten()[order].cumsum(0)
    # the first tile at which enough weights are gone is the last one to go
    last = int(torch.searchsorted(removed, drop_count(rows * cols, sparsity)))
    keep = torch.ones(order.numel(), dtype=torch.bool, device=score.device)
    keep[order[: last + 1]] = False
    mask = expand_tiles(keep.view(counts.shape), rows, cols, pattern.height, pattern.width)
    # an earlier step may have overshot on large tiles, so that fewer weights than are dead had to go
    return mask if alive is None else mask & alive


def _select_parts(
    score: Tensor, pattern: Pattern, sparsity: float, rows: int, cols: int, alive: Tensor | None
) -> Tensor:
    """The same share of the runs of every part."""
    order = channel_order(cols, pattern.taps)
    by_weight = score.shape == (rows, cols)
    gathered = score[:, order] if by_weight else score
    left = None if alive is None else alive[:, order]
    run = pattern.width * pattern.taps
    whole = Pattern("block", rows, run)
    mask = torch.empty(rows, cols, dtype=torch.bool, device=score.device)
    before = 0
    for count in pattern.parts:
        here = slice(before * run, (before + count) * run)
        seen = gathered[:, here] if by_weight else gathered[:, before : before + count]
        kept = (
            left[:, here] if left is not None else torch.ones(rows, count * run, dtype=torch.bool, device=score.device)
        )
        mask[:, order[here]] = select_mask(seen, whole, sparsity, kept)
        before += count
    return mask


def _select_nm(score: Tensor, pattern: Pattern, alive: Tensor | None) -> Tensor:
    rows, cols = score.shape
    ranked = score if alive is None else score.masked_fill(~alive, -math.inf)
    keep = torch.zeros(rows, cols, dtype=torch.bool, device=score.device)
    full = cols - cols % pattern.m
    if full:
        groups = ranked[:, :full].reshape(rows, -1, pattern.m)
        chosen = torch.zeros_like(groups, dtype=torch.bool)
        chosen.scatter_(2, groups.topk(pattern.n, dim=2).indices, True)
        keep[:, :full] = chosen.reshape(rows, full)
    if full < cols:  # a tail shorter than m keeps its share, rounded up
        share = math.ceil((cols - full) * pattern.n / pattern.m)
        tail = torch.zeros(rows, cols - full, dtype=torch.bool, device=score.device)
        tail.scatter_(1, ranked[:, full:].topk(share, dim=1).indices, True)
        keep[:, full:] = tail
    return keep if alive is None else keep & alive
