"""Costs that follow from shapes alone: multiply-accumulates and bytes of the whole model and of what is not a unit."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fewer.models.macs import model_macs
from fewer.models.matching import MatchResult
from fewer.models.running import Forward
from fewer.models.storage import header_bytes


def other_parameters(model: nn.Module, result: MatchResult) -> int:
    """Number of parameters that belong to no unit (biases, norms, embeddings, skipped layers).

    Examples
    --------
    >>> from fewer.models.matching import match
    >>> net = nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4))
    >>> other_parameters(net, match(net, torch.zeros(1, 8)))
    12
    """
    return sum(p.numel() for p in model.parameters()) - sum(unit.numel for unit in result.units)


def other_bytes(model: nn.Module, result: MatchResult) -> int:
    """Bytes in ``model.safetensors`` that are no unit's weight: all other state, tied tensors once, and the header.

    The header's length is an upper bound to a few bytes per tensor, so that this plus every unit's
    :func:`~fewer.models.storage.packed_bytes` is never less than the file.

    Examples
    --------
    >>> from fewer.models.matching import match
    >>> net = nn.Linear(8, 4)
    >>> 16 < other_bytes(net, match(net, torch.zeros(1, 8))) < 500
    True
    """
    units = {id(model.get_submodule(unit.name).weight): unit for unit in result.units}
    total, entries, seen = 0, [], set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor) or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        shape = tuple(tensor.shape)
        if id(tensor) in units:
            entries += [(f"{name}@values", (tensor.numel(),)), (f"{name}@mask", (tensor.numel(),))]
        else:
            entries.append((name, shape))
            total += tensor.numel() * tensor.element_size()
    return total + header_bytes(entries)


def fixed_costs(
    model: nn.Module, example_input: Any, result: MatchResult, forward: Forward | None = None
) -> dict[str, float]:
    """What the model costs beside its units' weights, whatever the plan.

    Parameters
    ----------
    model : nn.Module
        The dense model.
    example_input : Tensor, tuple or dict
        The example that ``result`` was matched with.
    result : MatchResult
        Of :func:`fewer.models.matching.match`.
    forward : callable, optional
        As given to ``match``.

    Returns
    -------
    dict
        ``macs`` and ``flops`` (twice that) per sample: attention's products and skipped layers; ``size`` in bytes;
        ``parameters``: number of parameters in no unit.

    Examples
    --------
    >>> from fewer.models.matching import match
    >>> net, x = nn.Linear(8, 4), torch.zeros(1, 8)
    >>> fixed_costs(net, x, match(net, x))["macs"]
    0.0
    """
    # a unit's product may be missed by the counter (a custom operator); the rest is then not negative but unknown, 0
    macs = max(0.0, model_macs(model, example_input, forward) - sum(unit.macs for unit in result.units))
    return {
        "macs": macs,
        "flops": 2 * macs,
        "size": float(other_bytes(model, result)),
        "parameters": float(other_parameters(model, result)),
    }
