"""Refit of a layer that loses inputs which another layer chose, such as the first layer of a squeeze and excitation
block when channels behind it are cut.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["without_inputs"]

_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_FEWEST = 4  # samples, below which only the mean is made up for
_MOST = 512


@torch.no_grad()
def without_inputs(weight: Tensor, inputs: Tensor, alive: Tensor, *, biased: bool = True) -> tuple[Tensor, Tensor]:
    """Weights that make up for inputs that are gone, as far as those that stay can tell.

    What the lost inputs contributed is regressed on the others by ridge regression. Its strength is the one with the
    least leave-one-out error, which for ridge has a closed form; where no strength is better than the mean alone, the
    mean alone is made up for. Such layers often read averages over an image, so that there are fewer samples than
    inputs and a plain least-squares fit would remember them.

    Parameters
    ----------
    weight
        (rows, columns).
    inputs
        (samples, columns).
    alive
        (columns,) bool: inputs that stay.
    biased
        Whether the layer has a bias that can take up a mean. Without one, the inputs that stay make up for it as well.

    Returns
    -------
    weight
        (rows, columns), zero where inputs are gone.
    shift
        (rows,), to be added to the bias; zero where there is none.

    Examples
    --------
    >>> x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    >>> x[:, 2] = 2 * x[:, 1] + 1  # the lost input follows from one that stays
    >>> weight, shift = without_inputs(torch.ones(1, 3), x, torch.tensor([True, True, False]))
    >>> torch.round(weight, decimals=1), torch.round(shift, decimals=1)
    (tensor([[1., 3., 0.]]), tensor([1.]))
    """
    x = inputs[:: -(-len(inputs) // _MOST)].double()
    lost = x[:, ~alive] @ weight[:, ~alive].double().T
    new = weight.double() * alive
    others = x[:, alive]
    shift, centre = (t.mean(0) if biased else t.new_zeros(t.shape[1]) for t in (lost, others))
    delta = _ridge(others - centre, lost - shift, centred=biased) if len(x) >= _FEWEST else None
    if delta is not None:
        new[:, alive] += delta
        shift = shift - delta @ centre
    return new.to(weight), shift.to(weight)


def _ridge(x: Tensor, y: Tensor, *, centred: bool = True) -> Tensor | None:
    """(rows, columns) of the regression of y on x; None where nothing, or the mean of centred y, does as well."""
    count = len(x)
    share = 1 / count if centred else 0.0  # of a sample in the mean that was taken away
    values, vectors = torch.linalg.eigh(x @ x.T)
    values = values.clamp_min(0)
    scale = values.mean()
    if not bool(scale > 0):
        return None
    turned = vectors.T @ y
    least, found = float((y / (1 - share)).square().mean()), None
    for strength in _STRENGTHS:
        shrunk = values / (values + strength * scale)
        hat = vectors.square() @ shrunk + share
        left = (y - vectors @ (shrunk[:, None] * turned)) / (1 - hat).clamp_min(1e-3)[:, None]
        if float(left.square().mean()) < least:
            least, found = float(left.square().mean()), strength
    if found is None:
        return None
    return (vectors @ (turned / (values + found * scale)[:, None])).T @ x
