"""Distortion of embeddings: how far they move against each other, which is all that a search among them sees.

A network for retrieval is used by comparing its outputs. What moves all of them alike changes no comparison, however
far it is; and where most of an output is the same for every input, the relative squared change is nearly all of that
kind. So the change that a batch shares is taken out, and the rest is told in units of what differs between inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.distortion.outputs import Reference, output_tensors

__all__ = ["EmbeddingDistance"]

_SHARED = 0.5
"""Weight of the plain change: embeddings that were made before and are kept should still be near to new ones."""


class EmbeddingDistance:
    """Change of embeddings against each other, and of each for itself.

    Half of the distance is ``|d - mean d|^2``, the change ``d`` of a sample without what its batch shares, over the
    mean of ``|f(x) - mean f|^2``. The other half is the relative squared change, as of :class:`Reference`. Samples that
    go through the network alone share their change with nobody, and have the latter only. The mean of a batch of n has
    an n-th of what differs in it, which is put back.

    Parameters
    ----------
    outputs
        Of the dense network, one per batch; samples are along the first dimension of every tensor.

    Raises
    ------
    FewerError
        When an output is not finite, or its shape depends on the inputs.

    Examples
    --------
    >>> dense = torch.tensor([[9.0, 1.0], [9.0, -1.0]])
    >>> distance = EmbeddingDistance([dense])
    >>> [round(float(distance.change(0, other).mean()), 3) for other in (dense, dense + 1, 0 * dense)]
    [0.0, 0.012, 1.0]
    """

    def __init__(self, outputs: Sequence[Any]) -> None:
        plain = Reference(outputs)
        self.tensors, self.samples, self.scale = plain.tensors, plain.samples, plain.scale
        self.spread = torch.tensor([self._spread(i) for i in range(len(self.scale))]) * len(self.scale)

    def _spread(self, index: int) -> float:
        every = [tensors[index] for tensors in self.tensors]
        if any(not t.ndim for t in every) or sum(len(t) for t in every) != self.samples:
            raise FewerError("an output of the network has not one row for each sample; such outputs are no embeddings")
        rows = torch.cat([t.flatten(1).double().cpu() for t in every])
        found = float((rows - rows.mean(0)).square().sum()) / max(1, len(rows) - 1)
        energy = float(self.scale[index]) / len(self.scale)
        return found if found > 1e-12 * energy else energy  # inputs that are all alike tell nothing of differences

    @classmethod
    def plain_form(cls, outputs: Sequence[Any]) -> Reference:
        """The relative squared change; what the setting ``distance = "plain"`` means."""
        return Reference(outputs)

    def part(self, start: int, stop: int) -> EmbeddingDistance:
        """The batches ``start`` to ``stop`` alone, on the scale of the whole."""
        part = object.__new__(EmbeddingDistance)
        part.tensors, part.scale, part.spread = self.tensors[start:stop], self.scale, self.spread
        part.samples = sum(len(tensors[0]) for tensors in part.tensors)
        return part

    def _changes(self, wanted: Sequence[Tensor], got: Sequence[Tensor]) -> Tensor:
        """Of each sample of a batch, with gradients in ``got``."""
        if [t.shape for t in wanted] != [t.shape for t in got]:
            raise FewerError("the shape of the network's output depends on its weights; such a change has no measure")
        total: Any = 0.0
        for scale, spread, a, b in zip(self.scale.tolist(), self.spread.tolist(), wanted, got, strict=True):
            moved = (b.float() - a.float()).flatten(1)
            count, plain = len(moved), moved.square().sum(1, dtype=torch.float64) / scale
            if count > 1:
                apart = (moved - moved.mean(0)).square().sum(1, dtype=torch.float64) * (count / (count - 1) / spread)
                plain = _SHARED * plain + (1 - _SHARED) * apart
            total = total + plain
        return total

    def change(self, batch: int, output: Any) -> Tensor:
        """Change of each sample of one batch, float64, shape (samples of the batch,)."""
        return self._changes(self.tensors[batch], output_tensors(output)).detach().cpu()

    def error(self, wanted: Any, got: Any) -> Tensor:
        """Mean change over the samples of a batch that is none of the dense ones, with gradients in ``got``.

        Examples
        --------
        >>> dense = torch.tensor([[9.0, 1.0], [9.0, -1.0]])
        >>> round(float(EmbeddingDistance([dense]).error(dense, 1.1 * dense)), 3)
        0.01
        """
        return self._changes(output_tensors(wanted), output_tensors(got)).mean().float()

    def directions(self, batch: int, outputs: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Random directions whose squared products with a small change are its distance, in the mean."""
        drawn = []
        for scale, spread, t in zip(self.scale.tolist(), self.spread.tolist(), outputs, strict=True):
            one, other = (torch.randint(0, 2, t.shape, generator=generator).to(t) * 2 - 1 for _ in range(2))
            if len(t) > 1:
                apart = (other - other.mean(0)) * ((1 - _SHARED) * len(t) / (len(t) - 1) / spread) ** 0.5
                drawn.append(one * (_SHARED / scale) ** 0.5 + apart)
            else:
                drawn.append(one / scale**0.5)
        return drawn
