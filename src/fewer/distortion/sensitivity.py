"""How much the model's output feels each channel of each layer, so that a cut falls where it is felt least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewer.distortion.distance import Distance, probe_directions
from fewer.distortion.outputs import Reference, output_tensors
from fewer.models.inputs import layer_input
from fewer.models.layers import Layer, channel_axis
from fewer.models.running import Forward, call, evaluating

__all__ = ["output_sensitivity", "probe_gradients"]


def output_sensitivity(
    model: nn.Module,
    layers: Sequence[Layer],
    batches: Sequence[Any],
    forward: Forward | None = None,
    *,
    probes: int = 2,
    seeds: Sequence[int] | None = None,
    reference: Distance | None = None,
    hidden: dict[str, float] | None = None,
) -> dict[str, Tensor]:
    """How much the model's output feels a change of each output channel of each layer.

    The mean square of the probe gradient ``d (r . f) / d y`` over samples and positions: the diagonal of the second
    factor of K-FAC (Martens and Grosse 2015). The channels of a layer weigh very differently
    where a BatchNorm or a layer scale follows; an error of a channel that is hardly felt is cheap.

    Parameters
    ----------
    model, layers, batches, forward, probes, seeds, reference
        As for :class:`~fewer.distortion.taylor.Taylor`. The model's parameters and flags are as before afterwards.
    hidden
        Filled with the share of each layer's outputs, by unit name, that the model's output does not feel at all, as
        an activation such as ReLU hides them; positions that nothing reads do not count. What is hidden on the images
        at hand comes up as soon as cuts before it have moved it: there the sensitivity says little about a cut.

    Returns
    -------
    dict of str to Tensor
        Shape (out,), mean 1, by unit name. Ones for a layer that the output does not feel at all.

    Examples
    --------
    >>> from fewer.models.layers import find_layers
    >>> from fewer.core.unit import Unit
    >>> net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1, bias=False))
    >>> net[1].weight.data = torch.tensor([[1.0, 3.0]])
    >>> layers = find_layers(net, [Unit("0", "linear", (2, 3))], torch.ones(1, 3))
    >>> output_sensitivity(net, list(layers.values()), [torch.ones(1, 3)])["0"]
    tensor([0.2000, 1.8000])
    """
    sums = {one.unit.name: torch.zeros(one.unit.rows, device=one.weight.device) for one in layers}
    seen: dict[str, list[int]] = {one.unit.name: [0, 0] for one in layers}

    def add(layer: Layer, _batch: int, gradient: Tensor) -> None:
        sums[layer.unit.name].add_(gradient.square().sum(0))
        # a position that nothing reads, such as any token but the first one, is not hidden by an activation
        felt, counts = gradient.count_nonzero(1), seen[layer.unit.name]
        read = int((felt > 0).sum()) * gradient.shape[1]
        counts[0] += read - int(felt.sum())
        counts[1] += read

    probe_gradients(model, layers, batches, add, forward, probes=probes, seeds=seeds, reference=reference)
    if hidden is not None:
        hidden.update({name: zeros / max(1, count) for name, (zeros, count) in seen.items()})
    return {n: t / t.mean() if float(t.sum()) > 0 else torch.ones_like(t) for n, t in sums.items()}


def probe_gradients(
    model: nn.Module,
    layers: Sequence[Layer],
    batches: Sequence[Any],
    visit: Callable[[Layer, int, Tensor], None],
    forward: Forward | None = None,
    *,
    probes: int = 2,
    seeds: Sequence[int] | None = None,
    reference: Distance | None = None,
) -> None:
    """Send random directions of the output back through a model, and show what arrives at each layer's output.

    Parameters
    ----------
    model, layers, batches, forward, probes, seeds, reference
        As for :func:`output_sensitivity`.
    visit
        ``visit(layer, batch, gradient)``, once for every call of a layer's module and every probe; the gradient is
        float32, shape (positions, outputs of the layer), samples first.
    """
    if reference is None:
        with evaluating(model):
            reference = Reference([call(model, b, forward) for b in batches])
    seeds = list(seeds) if seeds is not None else list(range(len(batches)))
    sources: list[Tensor] = []
    at = [0]
    handles = []
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        # no weight needs a gradient: that halves the work. Layers that nothing before needs one for start the graph
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        for one in layers:
            for user in one.users:
                handles.append(user.register_forward_pre_hook(_source_hook(sources), with_kwargs=True))
                handles.append(user.register_forward_hook(_gradient_hook(one, at, visit)))
        with evaluating(model):
            for index, (batch, seed) in enumerate(zip(batches, seeds, strict=True)):
                generator = torch.Generator().manual_seed(seed)
                sources.clear()
                at[0] = index
                with torch.enable_grad():
                    outputs = output_tensors(call(model, batch, forward))
                kept = [t for t in outputs if t.requires_grad]
                for probe in range(probes if kept else 0):
                    drawn = probe_directions(reference, index, outputs, generator)
                    signs = [sign for t, sign in zip(outputs, drawn, strict=True) if t.requires_grad]
                    torch.autograd.grad(kept, sources, signs, retain_graph=probe + 1 < probes, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _source_hook(sources: list[Tensor]) -> Any:
    """A hook that makes a layer's input the start of a graph where there is none yet."""

    def hook(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        x = layer_input(inputs, keywords)
        if x.requires_grad or not x.is_floating_point():
            return None
        x = x.detach().requires_grad_(True)
        sources.append(x)
        return ((x, *inputs[1:]), keywords) if inputs else ((), {**keywords, "input": x})

    return hook


def _gradient_hook(layer: Layer, at: list[int], visit: Callable[[Layer, int, Tensor], None]) -> Any:
    """A hook that shows the gradient at a module's output, with the number of the batch in ``at``."""

    def hook(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        axis = channel_axis(module, output)

        def show(gradient: Tensor | None) -> None:
            if gradient is None:  # a function of the model's own that has no gradient
                return
            per_channel = gradient.float().movedim(axis, -1)
            visit(layer, at[0], per_channel.reshape(-1, per_channel.shape[-1]))

        if output.requires_grad:
            output.register_hook(show)

    return hook
