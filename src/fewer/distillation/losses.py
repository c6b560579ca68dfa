"""How far a student is from its teacher: in what the model gives out, and in what single blocks give out."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from fewer.distortion.outputs import Reference, output_tensors, samples_of

__all__ = ["JudgesAny", "block_error", "output_error"]


class JudgesAny(Protocol):
    """A distance that judges batches other than those that it was made from."""

    def error(self, wanted: Any, got: Any) -> Tensor:
        """Mean change over the samples of a batch, with gradients in ``got``."""
        ...


def output_error(reference: Reference | JudgesAny, wanted: Any, got: Any) -> Tensor:
    """The report's own distortion of a batch, mean over its samples, with gradients.

    Parameters
    ----------
    reference
        Gives the scale of each output tensor: its energy over the calibration images, so that a batch of faint images
        does not count more than another. A distance of a task that can judge any batch (``error``) does so itself.
    wanted, got
        Outputs of the teacher and of the student: tensors, tuples, lists, mappings or a nest of them.

    Returns
    -------
    Tensor
        A scalar, float32; 0 for the same output.

    Examples
    --------
    >>> reference = Reference([torch.tensor([[3.0, 4.0]])])
    >>> round(float(output_error(reference, torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]]))), 4)
    0.64
    """
    if not isinstance(reference, Reference):
        return reference.error(wanted, got)
    a, b = output_tensors(wanted), output_tensors(got)
    samples, total = samples_of(a), torch.zeros(())
    for scale, there, here in zip(reference.scale, a, b, strict=True):
        total = total + (here.float() - there.float()).square().sum() / (float(scale) * samples)
    return total


def block_error(wanted: Tensor, got: Tensor, axis: int) -> Tensor:
    """Squared error of a block's output, each channel in units of its own spread, mean over channels.

    Few channels of a transformer's residual stream are many times larger than the others; what reads them normalises
    them, so an error in units of the whole stream's energy would see these few alone. A channel that hardly varies is
    held against a share of what the others vary by.

    Parameters
    ----------
    wanted, got
        Of the same shape.
    axis
        Of the channels.

    Returns
    -------
    Tensor
        A scalar, float32; 0 for the same output, about 1 for one that gives each channel's mean.

    Examples
    --------
    >>> wanted = torch.tensor([[1.0, 10.0], [-1.0, -10.0]])
    >>> float(block_error(wanted, wanted, 1)), round(float(block_error(wanted, 0 * wanted, 1)), 2)
    (0.0, 0.95)
    """
    wanted, got = wanted.float(), got.float()
    others = [i for i in range(wanted.ndim) if i != axis % wanted.ndim]
    variance = wanted.var(others, correction=0, keepdim=True)
    # not the mean alone, which a few large channels raise; not the median alone, which is 0 where half are silent
    floor = torch.maximum(0.1 * variance.median(), 1e-3 * variance.mean()) + torch.finfo(torch.float32).tiny
    return ((got - wanted).square() / (variance + floor)).mean()
