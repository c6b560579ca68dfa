"""Rivals of the literature at ratios of one's own choice: SparseGPT and Wanda in order, magnitude and LAMP in place.

The methods themselves are in ``fewer.compensate.published``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fewer.core.option import Option
from fewer.engine.prepare import Prepared
from fewer.engine.published import prune_as_published
from fewer.engine.settings import Settings
from fewer.engine.work import Work


def uniform_in_order(prepared: Prepared, method: str, pattern: str, sparsity: float) -> nn.Module:
    """Every layer at the same ratio, each on the inputs that the cuts before it leave."""
    return in_order_at(prepared, method, pattern, lambda _unit: sparsity)


def in_order_at(prepared: Prepared, method: str, pattern: str, sparsity_of: Callable[[str], float]) -> nn.Module:
    """Each layer at its own ratio (by unit name), on the inputs that the cuts before it leave."""
    chosen = {unit.name: Option(pattern, sparsity_of(unit.name)) for unit in prepared.matched.units}
    return prune_as_published(Work(prepared, Settings()), method, chosen)


def weight_scores(prepared: Prepared, method: str) -> dict[str, Tensor]:
    """Magnitude of each weight, or its LAMP score (Lee et al., arXiv 2010.07611, equation 4), by unit name."""
    found = {}
    for unit in prepared.matched.units:
        square = prepared.layers[unit.name].weight.detach().float().square().flatten()
        if method == "lamp":
            order = square.argsort()
            left = square[order].flip(0).cumsum(0).flip(0)
            square = torch.empty_like(square).scatter_(0, order, square[order] / left.clamp_min(1e-30))
        found[unit.name] = square
    return found


def global_masks(prepared: Prepared, method: str, sparsity: float) -> dict[str, Tensor]:
    """Keep the weights of the highest score of the whole network."""
    scores = weight_scores(prepared, method)
    flat = torch.cat(list(scores.values()))
    keep = torch.ones_like(flat, dtype=torch.bool)
    keep[flat.argsort(stable=True)[: round(sparsity * len(flat))]] = False
    parts = keep.split([len(s) for s in scores.values()])
    return {u.name: part.view(u.shape) for u, part in zip(prepared.matched.units, parts, strict=True)}


def global_in_place(prepared: Prepared, method: str, sparsity: float) -> nn.Module:
    """Magnitude or LAMP over the whole network, without data and without repair."""
    model = copy.deepcopy(prepared.model).eval()
    for name, mask in global_masks(prepared, method, sparsity).items():
        weight: Tensor = model.get_submodule(name).weight  # type: ignore[assignment]
        weight.data.mul_(mask)
    return model


def lamp_shares(prepared: Prepared, share: float) -> dict[str, float]:
    """Share of weights that LAMP keeps in each unit."""
    return {name: float(mask.float().mean()) for name, mask in global_masks(prepared, "lamp", 1 - share).items()}
