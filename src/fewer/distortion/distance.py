"""The distance protocol: how a task says what a change of its model's output is worth.

The default is :class:`~fewer.distortion.outputs.Reference`, the relative squared change of every output tensor. A
detector, a segmenter or a model of quality may know better which changes matter. Such a distance is handed in as a
function, by ``Task.distance`` or ``fewer.compress(..., distance=...)``, and nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fewer.distortion.outputs import Reference

__all__ = ["Distance", "MakeDistance", "probe_directions"]


@runtime_checkable
class Distance(Protocol):
    """Outputs of the dense model on fixed batches, and how far other outputs are from them.

    It is made of the dense outputs, one per batch, each just as the model gave it: ``make(outputs)``. It is asked from
    several threads at once, so that it must not change afterwards.

    A distance may also have ``directions(batch, outputs, generator)``: random directions for the estimate by gradients.
    They are tensors r, one for each floating-point tensor of the outputs in the order of
    :func:`~fewer.distortion.outputs.output_tensors`, such that the mean of ``(r . d)^2`` over the draws is the summed
    change of the batch's samples for a small change d of the outputs. For a quadratic form ``|S d|^2`` that is
    ``r = S^T e`` with random signs e. Without it, gradients are those of the relative squared change; measured
    distortion, and everything that is reported, is the distance's own in any case.

    What makes it may have ``tells_places = True``: places of the output weigh by what they are worth. Rows of weights
    are then ranked by what the network feels, also where an activation hides outputs, and positions of a layer count in
    its repair as much as the output feels them (:mod:`fewer.distortion.places`).

    Attributes
    ----------
    samples
        Samples of all batches together.
    """

    samples: int

    def part(self, start: int, stop: int) -> Distance:
        """The batches ``start`` to ``stop`` alone; the change of a sample stays what it was."""
        ...

    def change(self, batch: int, output: Any) -> Tensor:
        """Change of each sample of one batch: float64 on the CPU, shape (samples of the batch,).

        0 for the dense output itself, not negative, and finite; about 1 where nothing of the output is left.
        """
        ...


MakeDistance = Callable[[Sequence[Any]], Distance]
"""Makes a distance of the dense model's outputs, one per batch; a class with such a constructor is one."""


def probe_directions(
    reference: Distance, batch: int, outputs: Sequence[Tensor], generator: torch.Generator
) -> list[Tensor]:
    """Random directions over a batch's outputs, for the estimate of distortion by gradients.

    Parameters
    ----------
    reference
        Gives its own directions if it can; else they are those of the relative squared change of these outputs.
    batch
        Which of the reference's batches.
    outputs
        All floating-point output tensors of that batch.
    generator
        On the CPU, so that the same directions are drawn on every device.

    Returns
    -------
    list of Tensor
        In the shapes of the outputs, on their device.

    Examples
    --------
    >>> outputs = [torch.tensor([[3.0, 4.0]])]
    >>> drawn = probe_directions(Reference(outputs), 0, outputs, torch.Generator().manual_seed(0))
    >>> drawn[0].abs()
    tensor([[0.2000, 0.2000]])
    """
    own = getattr(reference, "directions", None)
    if own is None:
        own = Reference([list(outputs)]).directions
    return own(batch, outputs, generator)
