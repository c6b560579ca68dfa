"""Correct the mean and the variance of a layer's output after a cut that looked at no input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fewer.compensate.moments import rows_wanted
from fewer.core.errors import FewerError
from fewer.models.inputs import sampled_rows
from fewer.models.layers import Fit

__all__ = ["balanced"]


def balanced(fit: Fit, dense: Tensor, user: nn.Module, inputs: Sequence[Tensor], *, centred: bool, name: str) -> Fit:
    """A cut with the mean shift and the factor of the variance that make up for it.

    The outputs are computed for the inputs, which is cheaper than the products of inputs that a least-squares repair
    needs: a convolution has thousands of inputs and some hundred outputs.

    Parameters
    ----------
    fit
        A cut that repairs nothing.
    dense
        The weight before the cut, shape (rows, columns).
    user
        The layer's module.
    inputs
        What it gets, batch by batch.
    centred
        Whether the output may be shifted.
    name
        Of the layer, for errors.

    Raises
    ------
    FewerError
        When an input is NaN or infinite.

    Examples
    --------
    >>> from fewer.core.option import Option
    >>> weight = torch.tensor([[1.0, 1.0]])
    >>> cut = Fit(Option("unstructured", 0.5), weight > 0, torch.tensor([[1.0, 0.0]]), torch.zeros(1))
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    >>> balanced(cut, weight, nn.Linear(2, 1), [x], centred=True, name="fc").shift
    tensor([2.])
    """
    groups = int(getattr(user, "groups", 1))
    both = torch.stack([dense.float(), fit.weight.float()]).view(2, groups, -1, dense.shape[1])
    count, total, square = 0, both.new_zeros(2, dense.shape[0]), both.new_zeros(2, dense.shape[0])
    for x in inputs:
        for (rows,) in sampled_rows(user, (x,), rows_wanted(dense.shape[1], 1 / len(inputs))):
            out = torch.einsum("ngc,vgrc->vngr", rows, both).flatten(2)
            count, total, square = count + len(rows), total + out.sum(1), square + out.square().sum(1)
    if not bool(torch.isfinite(square).all()):
        raise FewerError(
            f"the input of layer '{name}' holds NaN or infinity on the calibration images: "
            "check the images and the model's preprocessing."
        )
    mean = total / max(1, count)
    before, after = square / max(1, count) - mean.square()
    spread = torch.where((before > 0) & (after > 0), after / before.clamp_min(1e-30), 1.0).clamp(0.01, 100)
    return replace(fit, shift=(mean[0] - mean[1]) * float(centred), spread=spread)
