"""A moving average of weights and buffers: better than the last step where steps are noisy, and a mean teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.training.constrained import Constrained

__all__ = ["Average"]

_POWER = 6.0  # the mean weighs step s of t by (s / t)^6: about the last seventh of the steps


class Average:
    """Moving average of the weights that an optimiser steps on, and of the model's buffers.

    Two kinds of mean are there. With ``decay`` it is exponential: step s changes the mean by
    ``1 - min(decay, 1 - 1 / s)`` of the difference, so that it begins as the plain mean of the first steps, as in
    Tarvainen and Valpola 2017 (*Mean teachers are better role models*, section 3). Without, it is the power-function
    mean of Karras et al. 2024 (*Analyzing and Improving the Training Dynamics of Diffusion Models*, section 3.1), which
    forgets the beginning however long the training becomes.

    Parameters
    ----------
    weights
        A model, or its constrained parameters, as they are now: the mean before the first step.
    decay
        Of the exponential mean, such as 0.99; None takes the power-function mean.
    buffers
        Average floating-point buffers too, such as the statistics of BatchNorm; others are copied. False leaves all
        buffers to the model, which saves time where they never change.

    Raises
    ------
    FewerError
        When the decay is not between 0 and 1.

    Examples
    --------
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> average = Average(net)
    >>> for step in (1, 2):
    ...     _ = net.weight.data.fill_(step)
    ...     average.follow(step)
    >>> with average.installed():
    ...     inside = net.weight.item()
    >>> round(inside, 3), net.weight.item()
    (1.992, 2.0)
    """

    def __init__(self, weights: Constrained | nn.Module, decay: float | None = None, *, buffers: bool = True) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise FewerError(f"the decay of a moving average lies from 0 to less than 1; got {decay:g}")
        self.weights = weights if isinstance(weights, Constrained) else Constrained(weights, {}, only_trainable=True)
        self.decay = decay
        self.values: list[Tensor] = [parameter.detach().clone() for parameter in self.weights.parameters()]
        self._live = dict(self.weights.model.named_buffers()) if buffers else {}
        self.buffers: dict[str, Tensor] = {name: buffer.detach().clone() for name, buffer in self._live.items()}
        self._teacher: nn.Module | None = None

    def share(self, step: int) -> float:
        """How far step ``step``, the first of which is 1, pulls the mean towards the weights.

        Examples
        --------
        >>> average = Average(torch.nn.Linear(1, 1), decay=0.75)
        >>> [round(average.share(step), 3) for step in (1, 2, 3, 100)]
        [1.0, 0.5, 0.333, 0.25]
        """
        if self.decay is None:
            return 1 - (1 - 1 / step) ** (1 + _POWER)
        return 1 - min(self.decay, 1 - 1 / step)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take the weights after a step in, the first of which is 1."""
        share = self.share(step)
        for value, parameter in zip(self.values, self.weights.parameters(), strict=True):
            value.lerp_(parameter, share)
        for name, buffer in self._live.items():
            value = self.buffers[name]
            if not buffer.is_floating_point():
                value.copy_(buffer)
                continue
            # a mask of minus infinity has no mean: infinity minus itself is not a number
            value.copy_(torch.where(torch.isfinite(value) & torch.isfinite(buffer), value.lerp(buffer, share), buffer))
        self.refresh()

    def teacher(self) -> nn.Module:
        """A copy of the model that holds the mean and follows it, to be called beside the model itself.

        Its parameters ask for no gradient. Put it into ``eval()`` or ``train()`` mode as the method needs; in training
        mode its own statistics of BatchNorm last until the next step only.
        """
        if self._teacher is None:
            self._teacher = copy.deepcopy(self.weights.model).requires_grad_(False)
            self.refresh()
        return self._teacher

    @property
    def made(self) -> nn.Module | None:
        """The teacher, if somebody has asked for it."""
        return self._teacher

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the mean into the teacher, if there is one, cut and rounded as it would be stored."""
        if self._teacher is None:
            return
        parameters, buffers = dict(self._teacher.named_parameters()), dict(self._teacher.named_buffers())
        for index, (name, value) in enumerate(zip(self.weights.names(), self.values, strict=True)):
            parameters[name].copy_(self.weights.stored(index, value))
        for name, value in self.buffers.items():
            buffers[name].copy_(value)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The model with the mean as its weights and buffers, cut and rounded as they would be stored."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for index, parameter in enumerate(self.weights.parameters()):
            held = parameter.detach().clone()
            parameter.copy_(self.values[index])
            self.values[index] = held
        for name, buffer in self._live.items():
            held = buffer.detach().clone()
            buffer.copy_(self.buffers[name])
            self.buffers[name] = held
        self.weights.install()
