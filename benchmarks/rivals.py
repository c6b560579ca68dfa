"""Layer-wise pruning of the literature, written from its mathematics, as honest rivals with a uniform ratio.

SparseGPT (Frantar and Alistarh, arXiv 2301.00774): masks chosen in blocks of 128 columns by w^2 / [H^-1]_jj of the
remaining columns, errors pushed to the columns on the right. Wanda (Sun et al., arXiv 2306.11695): |w| times the norm
of the input, compared within each output row, no update. Both go through the model in execution order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fewer.compensate.lockstep import PausedForward
from fewer.compensate.moments import Moments, add_input
from fewer.compensate.solve import damp
from fewer.engine.apply import fitting_images
from fewer.engine.prepare import Prepared
from fewer.models.layers import find_layers
from fewer.patterns import Pattern, select_mask


def sparsegpt(weight: Tensor, hessian: Tensor, pattern: Pattern, sparsity: float, block: int = 128) -> Tensor:
    """Prune and update one matrix; ``hessian`` is the damped (d, d) second moment of its input."""
    weight = weight.clone()
    keep = torch.ones_like(weight, dtype=torch.bool)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
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
    """Prune one matrix; ``power`` is the mean square of each input (d,)."""
    score = weight.abs() * power.sqrt()
    if pattern.kind != "unstructured":
        return weight * select_mask(score, pattern, sparsity)
    drop = score.argsort(dim=1)[:, : round(sparsity * weight.shape[1])]
    return weight.scatter(1, drop, 0.0)


def uniform_in_order(prepared: Prepared, method: str, pattern: str, sparsity: float) -> nn.Module:
    """Every layer at the same ratio, each on the inputs that the cuts before it leave."""
    return in_order_at(prepared, method, pattern, lambda _unit: sparsity)


def in_order_at(prepared: Prepared, method: str, pattern: str, sparsity_of: Callable[[str], float]) -> nn.Module:
    """Each layer at its own ratio (by unit name), on the inputs that the cuts before it leave."""
    model = copy.deepcopy(prepared.model).eval()
    units, parsed = prepared.matched.units, Pattern.parse(pattern)
    layers = find_layers(model, units, prepared.calibration[:1], prepared.forward)
    with PausedForward(model, fitting_images(prepared).batch(), {one.users[0]: n for n, one in layers.items()}) as walk:
        while (reached := walk.advance()) is not None:
            layer = layers[reached[0]]
            moments = Moments(getattr(layer.users[0], "groups", 1), layer.matrix.shape[1])
            add_input(moments, layer.users[0], reached[1])
            grouped = layer.matrix.view(moments.groups, -1, moments.columns)
            pruned = []
            sparsity = sparsity_of(reached[0])
            for g, rows in enumerate(grouped):
                if method == "sparsegpt":
                    pruned.append(sparsegpt(rows, damp(moments.second(0), 0.01)[g], parsed, sparsity))
                else:
                    pruned.append(wanda(rows, moments.diagonal()[g], parsed, sparsity))
            layer.install(torch.cat(pruned))
    return model


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
