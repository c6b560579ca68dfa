"""Move outliers of activations into the weights, where one scale per row copes with them better."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError

__all__ = ["smooth_norm", "smoothing_factors"]


def smoothing_factors(inputs: Tensor, weight: Tensor, strength: float = 0.5) -> Tensor:
    """What each input channel is divided by: ``max|x_j|^a / max|w_j|^(1-a)`` (SmoothQuant, arXiv 2211.10438, eq. 4).

    Parameters
    ----------
    inputs
        Largest magnitude of each input channel over the calibration images, shape (columns,).
    weight
        Of the layers that read these inputs, one below the other, shape (rows, columns).
    strength
        0 leaves the activations as they are, 1 moves all of their range into the weight.

    Returns
    -------
    Tensor
        Shape (columns,), positive; 1 for channels that are never active or never read.

    Examples
    --------
    >>> smoothing_factors(torch.tensor([4.0, 1.0]), torch.tensor([[1.0, 1.0]]))
    tensor([2., 1.])
    """
    if not 0 <= strength <= 1:
        raise FewerError(f"the strength of smoothing lies between 0 and 1; got {strength}")
    peak = weight.detach().abs().amax(0).float()
    usable = (inputs > 0) & (peak > 0)
    safe_inputs = torch.where(usable, inputs.float(), torch.ones_like(peak))
    factors = safe_inputs**strength / torch.where(usable, peak, torch.ones_like(peak)) ** (1 - strength)
    return torch.where(usable, factors.clamp(1e-3, 1e3), torch.ones_like(factors))


@torch.no_grad()
def smooth_norm(norm: nn.LayerNorm, layers: list[nn.Linear], inputs: Tensor, strength: float = 0.5) -> Tensor:
    """Divide what a LayerNorm gives by its smoothing factors, and multiply them into the layers that read it, in place.

    The function of the model does not change, up to rounding.

    Parameters
    ----------
    norm
        Affine LayerNorm whose output goes to ``layers`` and nowhere else.
    layers
        Linear layers.
    inputs
        Largest magnitude of each of their input channels, shape (columns,).
    strength
        See :func:`smoothing_factors`.

    Returns
    -------
    Tensor
        The factors.

    Examples
    --------
    >>> norm, layer, x = nn.LayerNorm(4), nn.Linear(4, 2), torch.randn(5, 4)
    >>> before = layer(norm(x))
    >>> _ = smooth_norm(norm, [layer], norm(x).abs().amax(0))
    >>> torch.allclose(layer(norm(x)), before, atol=1e-6)
    True
    """
    affine: Any = norm
    if affine.weight is None or affine.bias is None:
        raise FewerError("only an affine LayerNorm can be smoothed: there is nothing to fold the factors into")
    factors = smoothing_factors(inputs, torch.cat([layer.weight for layer in layers]), strength)
    affine.weight.div_(factors)
    affine.bias.div_(factors)
    for layer in layers:
        layer.weight.mul_(factors)
    return factors
