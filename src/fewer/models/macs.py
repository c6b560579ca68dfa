"""Multiply-accumulates of a model, counted by a forward pass."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.utils.flop_counter import FlopCounterMode

from fewer.models.running import Forward, batch_size, call, evaluating, to_device

__all__ = ["model_macs"]


def model_macs(model: nn.Module, example_input: Any, forward: Forward | None = None) -> float:
    """Multiply-accumulates of one sample through the whole model, attention's own products included.

    Parameters
    ----------
    model : nn.Module
        Left as it is.
    example_input : Tensor, tuple or dict
        One batch; the count is divided by its first dimension.
    forward : callable, optional
        ``forward(model, example_input)``.

    Returns
    -------
    float
        MACs per sample: half the FLOPs of ``torch.utils.flop_counter`` (matrix products, convolutions, attention;
        norms, activations and additions are not counted, as is usual).

    Examples
    --------
    >>> import torch
    >>> model_macs(nn.Linear(8, 4), torch.zeros(2, 8))
    32.0
    """
    if any(isinstance(p, UninitializedTensorMixin) for p in model.parameters()):
        model = copy.deepcopy(model)
    first = next(iter(model.parameters()), None)
    if first is not None:
        example_input = to_device(example_input, first.device)
    # the fused CPU attention kernel is unknown to the counter; the plain one is made of matrix products that it knows
    with evaluating(model), sdpa_kernel(SDPBackend.MATH), _counter() as counter:
        call(model, example_input, forward)
    return counter.get_total_flops() / 2 / batch_size(example_input)


class _NoTracker:
    """In place of torch's tracker of modules, whose hooks break a model that computes gradients by itself."""

    parents = frozenset(("Global",))

    def __enter__(self) -> _NoTracker:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _counter() -> FlopCounterMode:
    """A counter of all operations together, and not of each module."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoTracker()  # type: ignore[assignment]
    return counter
