"""Scores at which each option of a unit stops: what global magnitude and LAMP compare across units."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fewer.core.option import Option
from fewer.core.pattern import Pattern
from fewer.patterns.layout import channel_order
from fewer.patterns.select import drop_count
from fewer.patterns.tiles import tile_counts, tile_sums


def option_thresholds(matrix: Tensor, options: Sequence[Option]) -> dict[str, list[float]]:
    """Score of the least important weight (or tile) that each option keeps.

    Parameters
    ----------
    matrix
        Dense weight, shape (rows, columns).
    options
        Options of one pattern.

    Returns
    -------
    dict
        ``magnitude``: root mean square of the tile. ``lamp``: tile energy over the energy of all tiles not smaller
        (Lee et al., ICLR 2021, equation 3). Infinite where nothing is kept.

    Examples
    --------
    >>> option_thresholds(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), [Option(), Option("unstructured", 0.5)])["magnitude"]
    [1.0, 3.0]
    """
    rows, cols = matrix.shape
    result: dict[str, list[float]] = {"magnitude": [], "lamp": []}
    sorted_by_tile: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
    for option in options:
        pattern = Pattern.parse(option.pattern)
        order = channel_order(cols, pattern.taps) if pattern.taps > 1 else slice(None)
        pattern = pattern.fitted(rows, cols)
        key = (pattern.height, pattern.width)
        if key not in sorted_by_tile:
            counts = tile_counts(rows, cols, *key).flatten()
            energy = tile_sums(matrix.detach()[:, order].double().square(), *key).flatten()
            order = torch.argsort(energy / counts)
            energy, counts = energy[order], counts[order]
            above = energy.flip(0).cumsum(0).flip(0)
            scores = torch.where(above > 0, energy / above.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
            # tiles at an edge are smaller, so a later one may have the lower score
            lowest = scores.flip(0).cummin(0).values.flip(0)
            sorted_by_tile[key] = (energy, counts, lowest)
        energy, counts, lowest = sorted_by_tile[key]
        dropped = drop_count(rows * cols, option.sparsity)
        first = int(torch.searchsorted(counts.cumsum(0), dropped)) + 1 if dropped else 0
        if first >= len(energy):
            result["magnitude"].append(math.inf)
            result["lamp"].append(math.inf)
            continue
        result["magnitude"].append(math.sqrt(float(energy[first] / counts[first])))
        result["lamp"].append(float(lowest[first]))
    return result
