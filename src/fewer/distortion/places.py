"""At which positions of a layer's output the model's output feels a change, so that a repair serves those.

A least-squares repair counts every position of a layer alike. That is right where all of them count in the end. In a
scan seen from above most positions are empty road, and what a detector is worth is decided at the few that hold an
object: a repair of all positions alike spends itself on the road. The squared gradient of random directions of the
output says what a position is worth, by the very distance that the compressed model is judged by.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fewer.distortion.distance import Distance
from fewer.distortion.sensitivity import probe_gradients
from fewer.models.layers import Layer
from fewer.models.running import Forward

__all__ = ["felt_places", "joined_places"]

_EVEN = 0.2
"""What a position counts at least, as a part of the mean: where nothing is felt now, a cut may change that."""


def felt_places(
    model: nn.Module,
    layers: Sequence[Layer],
    batches: Sequence[Any],
    forward: Forward | None = None,
    *,
    probes: int = 2,
    seeds: Sequence[int] | None = None,
    reference: Distance | None = None,
) -> dict[str, list[Tensor]]:
    """How often each position of each layer's output should count, batch by batch.

    Parameters
    ----------
    model, layers, batches, forward, probes, seeds, reference
        As for :func:`fewer.distortion.sensitivity.output_sensitivity`.

    Returns
    -------
    dict of str to list of Tensor
        By unit name one tensor for each batch, shape (positions of the layer's output, samples first), with a mean of
        1 over all batches. Layers that are called more than once in a pass, and those that the output does not feel,
        are left out.

    Examples
    --------
    >>> from fewer.core.unit import Unit
    >>> from fewer.models.layers import find_layers
    >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    >>> net[0].weight.data, net[0].bias.data = torch.ones(1, 1), torch.zeros(1)
    >>> layers = find_layers(net, [Unit("0", "linear", (1, 1))], torch.ones(2, 1))
    >>> felt_places(net, list(layers.values()), [torch.tensor([[1.0], [-1.0]])])["0"]
    [tensor([1.8000, 0.2000])]
    """
    found: dict[str, dict[int, Tensor]] = {one.unit.name: {} for one in layers}
    calls: dict[tuple[str, int], int] = {}

    def add(layer: Layer, batch: int, gradient: Tensor) -> None:
        here, felt = found[layer.unit.name], gradient.square().mean(1).cpu()
        calls[layer.unit.name, batch] = calls.get((layer.unit.name, batch), 0) + 1
        before = here.get(batch)
        here[batch] = felt if before is None or len(before) != len(felt) else before + felt

    probe_gradients(model, layers, batches, add, forward, probes=probes, seeds=seeds, reference=reference)
    several = {name for (name, _), count in calls.items() if count > probes}
    out = {}
    for name, here in found.items():
        if name in several or len(here) < len(batches):
            continue
        mean = float(torch.cat(list(here.values())).mean())
        if 0 < mean < float("inf"):
            out[name] = [(1 - _EVEN) * here[i] / mean + _EVEN for i in range(len(batches))]
    return out


def joined_places(places: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """The places of single samples, put together as batches of so many of them.

    Examples
    --------
    >>> joined_places([torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])], [2, 1])
    [tensor([1., 2.]), tensor([3.])]
    """
    edges = [0]
    for size in sizes:
        edges.append(edges[-1] + size)
    return [torch.cat(list(places[a:b])) for a, b in pairwise(edges)]
