"""Distortion by Taylor expansion: a few backward passes serve every unit, sparsity and pattern.

To first order a change D of a layer changes the output by J D. With random signs r over the outputs, the gradient of
``r . f`` is ``J^T r``, and ``E (r^T J D)^2 = |J D|^2``: the squared inner product of a stored gradient with any D is an
unbiased estimate of its distortion. (Hutchinson's estimator; it replaces the gradient of ``|f|^2`` of the published
code, which sees one direction of the output only.) Independent r for the samples of a batch make the cross terms of
samples vanish in the mean, so one gradient stands for a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from fewer.distortion.distance import Distance, probe_directions
from fewer.distortion.outputs import Reference, output_tensors, samples_of
from fewer.models.layers import Fit, Layer, channel_axis
from fewer.models.running import Forward, call, evaluating
from fewer.patterns import to_matrix


class Taylor:
    """Estimate distortion from random-probe gradients.

    Parameters
    ----------
    model
        A private copy; its parameters' ``requires_grad`` flags and ``grad`` are used.
    layers
        The layers whose distortion will be asked for.
    batches
        Fixed calibration batches. Distortion is estimated per batch, so reductions such as max and cvar need batches of
        one.
    forward
        ``forward(model, batch)``.
    probes
        Random directions per batch.
    seeds
        Of the directions, one per batch.
    reference
        Dense outputs of the batches; computed when not given.
    dtype
        Of the stored gradients; ``bfloat16`` halves the memory, and its rounding averages out.
    memory
        Bytes of stored gradients at most; layers beyond are done in further passes.

    Attributes
    ----------
    passes
        Forward and backward passes of one sample done so far.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        batches: Sequence[Any],
        forward: Forward | None = None,
        *,
        probes: int = 4,
        seeds: Sequence[int] | None = None,
        reference: Distance | None = None,
        dtype: torch.dtype = torch.bfloat16,
        memory: float = 1.5e9,
    ) -> None:
        self.model, self.batches, self.forward = model, batches, forward
        self.probes, self.dtype = probes, dtype
        self.seeds = list(seeds) if seeds is not None else list(range(len(batches)))
        if reference is None:
            with evaluating(model):
                reference = Reference([call(model, b, forward) for b in batches])
        self.reference: Distance = reference
        self.passes = 0
        rows = len(batches) * probes
        self._portions: list[list[Layer]] = [[]]
        size = 0.0
        for layer in layers:
            need = rows * (layer.unit.numel + layer.unit.rows) * torch.empty((), dtype=dtype).element_size()
            if self._portions[-1] and size + need > memory:
                self._portions.append([])
                size = 0.0
            self._portions[-1].append(layer)
            size += need
        self._gradients: dict[str, Tensor] = {}
        self._lock = RLock()  # threads share one estimator, and with it the model that the passes run through
        self._spent = 0

    def collect(self) -> None:
        """Do the backward passes now, if all layers' gradients fit in memory at once."""
        if len(self._portions) == 1 and not self._gradients:
            self._collect(self._portions[0])

    def gradients(self, layer: Layer) -> Tensor:
        """Stored gradients of a layer, shape (batches, probes, weights + outputs): weight, then output shift."""
        name = layer.unit.name
        with self._lock:
            if name not in self._gradients:
                portion = next(p for p in self._portions if any(one.unit.name == name for one in p))
                self._gradients = {}
                self._collect(portion)
            return self._gradients[name]

    @property
    def note(self) -> str:
        """Nothing: gradients always take the whole model."""
        return ""

    def spent(self) -> int:
        """Passes since this was last asked."""
        with self._lock:
            new, self._spent = self.passes - self._spent, self.passes
            return new

    def _collect(self, portion: Sequence[Layer]) -> None:
        stored = {
            one.unit.name: torch.empty(
                len(self.batches),
                self.probes,
                one.unit.numel + one.unit.rows,
                dtype=self.dtype,
                device=one.weight.device,
            )
            for one in portion
        }
        shifts: dict[str, Tensor] = {}
        handles = []
        flags = [(p, p.requires_grad) for p in self.model.parameters()]
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        for one in portion:
            one.weight.requires_grad_(True)
            for user in one.users:
                handles.append(user.register_forward_hook(_shift_hook(one, shifts)))
        try:
            with evaluating(self.model):
                for index, batch in enumerate(self.batches):
                    generator = torch.Generator().manual_seed(self.seeds[index])
                    with torch.enable_grad():
                        outputs = output_tensors(call(self.model, batch, self.forward))
                    kept = [t for t in outputs if t.requires_grad]  # anchors and other constants come along as well
                    for probe in range(self.probes):
                        shifts.clear()
                        drawn = probe_directions(self.reference, index, outputs, generator)
                        grads: Sequence[Tensor | None] = [None] * len(portion)
                        if kept:
                            grads = torch.autograd.grad(
                                kept,
                                [one.weight for one in portion],
                                [sign for t, sign in zip(outputs, drawn, strict=True) if t.requires_grad],
                                retain_graph=probe + 1 < self.probes,
                                allow_unused=True,
                            )
                        for one, grad in zip(portion, grads, strict=True):
                            row = stored[one.unit.name][index, probe]
                            row[: one.unit.numel] = 0 if grad is None else to_matrix(grad).flatten()
                            row[one.unit.numel :] = shifts.get(one.unit.name, 0.0)
                    self.passes += samples_of(outputs) * (1 + self.probes)
        finally:
            for handle in handles:
                handle.remove()
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
        self._gradients = stored

    def square_gradient(self, layer: Layer) -> Tensor:
        """Mean square probe gradient of each weight, shape (out, columns)."""
        stored = self.gradients(layer)[..., : layer.unit.numel].float()
        return stored.square().mean((0, 1)).view_as(layer.matrix)

    def distortions(self, layer: Layer, fits: Iterable[Fit]) -> Tensor:
        """Estimated distortion of each fit on each sample, float64, shape (fits, samples).

        The samples of a batch share its estimate, which is one of their mean.
        """
        gradients = self.gradients(layer).float()
        dense = layer.matrix.float()
        per_batch = torch.tensor(self._samples())
        rows = []
        for fit in fits:
            change = torch.cat([(fit.weight - dense).flatten(), fit.shift])
            # one product per batch: its rounding then does not depend on how many batches a shard has
            along = torch.stack([batch @ change for batch in gradients])
            rows.append(along.double().square().mean(1).cpu() / per_batch)
        return torch.stack(rows).repeat_interleave(per_batch, 1)

    def _samples(self) -> list[int]:
        """Samples of each batch."""
        return [self.reference.part(i, i + 1).samples for i in range(len(self.batches))]


def rms_gradients(
    model: nn.Module,
    layers: Sequence[Layer],
    batches: Sequence[Any],
    forward: Forward | None = None,
    *,
    probes: int = 4,
    seeds: Sequence[int] | None = None,
    reference: Distance | None = None,
) -> dict[str, Tensor]:
    """Root mean square probe gradient of each layer's weight: the g of the score ``|w g|``.

    Over all batches, one after the other, so that only one batch's gradients are in memory, and so that what is cut
    first does not depend on how the work of sensing is shared out.

    Parameters
    ----------
    model, layers, batches, forward, probes, seeds, reference
        As for :class:`Taylor`.

    Returns
    -------
    dict of str to Tensor
        Shape (out, columns), by unit name.

    Examples
    --------
    >>> from fewer.models.layers import find_layers
    >>> from fewer.core.unit import Unit
    >>> net = nn.Linear(3, 2)
    >>> layers = find_layers(net, [Unit("", "linear", (2, 3))], torch.ones(1, 3))
    >>> rms_gradients(net, list(layers.values()), [torch.ones(1, 3)])[""].shape
    torch.Size([2, 3])
    """
    if reference is None:
        with evaluating(model):
            reference = Reference([call(model, b, forward) for b in batches])
    seeds = list(seeds) if seeds is not None else list(range(len(batches)))
    sums = {one.unit.name: torch.zeros_like(one.matrix, dtype=torch.float32) for one in layers}
    for i, seed in enumerate(seeds):
        part = reference.part(i, i + 1)
        taylor = Taylor(model, layers, batches[i : i + 1], forward, probes=probes, seeds=[seed], reference=part)
        for one in layers:
            sums[one.unit.name] += taylor.square_gradient(one)
    return {name: (total / len(batches)).sqrt() for name, total in sums.items()}


def _shift_hook(layer: Layer, shifts: dict[str, Tensor]) -> Any:
    """A forward hook that sums the gradient of the layer's output over all but its channels."""
    name = layer.unit.name

    def hook(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        axis = channel_axis(module, output)

        def keep(gradient: Tensor | None) -> None:
            if gradient is None:  # a function of the model's own that has no gradient
                return
            per_channel = gradient.movedim(axis, -1).reshape(-1, gradient.shape[axis]).sum(0)
            shifts[name] = shifts[name] + per_channel if name in shifts else per_channel

        if output.requires_grad:
            output.register_hook(keep)

    return hook
