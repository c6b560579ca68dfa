"""The mean of the weights over the last part of a training: steps from few images are noisy, and their mean is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fewer.training.constrained import Constrained

__all__ = ["Average"]

_POWER = 6.0  # the mean weighs step s of t by (s / t)^6: about the last seventh of the steps


class Average:
    """Running mean of the weights that an optimiser steps on, over a fixed share of the steps so far.

    The power-function mean of Karras et al. 2024 (*Analyzing and Improving the Training Dynamics of Diffusion Models*,
    section 3.1): it forgets the beginning however long the training becomes.

    Parameters
    ----------
    weights
        As they are now; the mean before the first step.

    Examples
    --------
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> weights = Constrained(net, {})
    >>> average = Average(weights)
    >>> for step in (1, 2):
    ...     _ = net.weight.data.fill_(step)
    ...     average.follow(step)
    >>> with average.installed():
    ...     inside = net.weight.item()
    >>> round(inside, 3), net.weight.item()
    (1.992, 2.0)
    """

    def __init__(self, weights: Constrained) -> None:
        self.weights = weights
        self.values: list[Tensor] = [parameter.detach().clone() for parameter in weights.parameters()]

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take the weights after a step in, the first of which is 1."""
        share = 1 - (1 - 1 / step) ** (1 + _POWER)
        for value, parameter in zip(self.values, self.weights.parameters(), strict=True):
            value.lerp_(parameter, share)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The model with the mean as its weights, cut and rounded as they would be stored."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        parameters = self.weights.parameters()
        for index, parameter in enumerate(parameters):
            held = parameter.detach().clone()
            parameter.copy_(self.values[index])
            self.values[index] = held
        self.weights.install()
