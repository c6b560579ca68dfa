"""Distortion by forward pass: change one layer, run what comes after it, compare outputs.

The measured finite difference of the ICCV 2023 rate-distortion pruning paper (section 1.2 of its additivity argument:
every higher-order effect inside the layer is included, only interactions between layers are not).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fewer.distortion.distance import Distance
from fewer.distortion.outputs import Reference, output_tensors
from fewer.distortion.replay import Replay
from fewer.models.layers import Fit, Layer
from fewer.models.running import Forward, call, evaluating


class Estimator(Protocol):
    """Anything that can say how much a changed layer changes the output."""

    @property
    def note(self) -> str:
        """What the report should say about how it was measured; empty for nothing."""
        ...

    def distortions(self, layer: Layer, fits: Iterable[Fit]) -> Tensor:
        """Distortion of each fit on each sample: float64, shape (fits, samples)."""
        ...

    def spent(self) -> int:
        """Passes of one sample since this was last asked."""
        ...


class Measured:
    """Measure distortion by running the model from the changed layer on.

    Parameters
    ----------
    model
        A private copy; it is changed and restored.
    batches
        Fixed calibration batches.
    forward
        ``forward(model, batch)``.
    reference
        Dense outputs of the batches; computed when not given.

    Attributes
    ----------
    passes
        Samples that were run through (part of) the model so far.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Any],
        forward: Forward | None = None,
        reference: Distance | None = None,
    ) -> None:
        self.model, self.batches, self.forward = model, batches, forward
        if reference is None:
            with evaluating(model):
                reference = Reference([call(model, b, forward) for b in batches])
        self.reference: Distance = reference
        self.replay = Replay(model, batches, forward)
        with evaluating(model):
            # the model as it is now, which after a first round is no longer the one of the reference
            self.dense = [t.clone() for t in output_tensors(call(model, batches[0], forward))]
        self.passes = 0
        self._spent = 0

    @property
    def note(self) -> str:
        """Why passes run through the whole model; empty while they start at the changed layer."""
        return self.replay.reason

    def spent(self) -> int:
        """Passes since this was last asked."""
        new, self._spent = self.passes - self._spent, self.passes
        return new

    def distortions(self, layer: Layer, fits: Iterable[Fit]) -> Tensor:
        """Distortion of each fit on each sample: float64, shape (fits, samples)."""
        # checked for every layer: what cannot be replayed may come late in the model
        self.replay.check(layer.users, self.dense)
        rows = []
        for fit in fits:
            if fit.option.is_dense and fit.option.precision == "fp32":
                rows.append(torch.zeros(self.reference.samples, dtype=torch.float64))
                continue
            with layer.borrowed():
                layer.install(fit.weight, fit.shift, fit.spread)
                parts = [self.reference.change(i, self.replay.run(i)) for i in range(len(self.batches))]
            self.passes += self.reference.samples
            rows.append(torch.cat(parts))
        return torch.stack(rows)
