"""What cannot be timed is refused before anything is run, in the same words by every verb that times."""

from __future__ import annotations

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.engine.work import Work

__all__ = ["refuse_other_numbers", "refuse_untimed"]


def refuse_untimed(work: Work) -> None:
    """Refuse what can be neither timed nor put on kernels, before anything is run.

    Raises
    ------
    FewerError
        With the budgets, or the model, to give instead.
    """
    prepared, device = work.prepared, work.settings.device
    if prepared.forward is not None:
        raise FewerError("a model with its own forward= cannot be timed; leave latency out of the budget")
    if device != "cpu":
        raise FewerError(
            f"latency is timed and planned for the CPU, whose kernels are ours, not for {device!r}: leave "
            "--device out, or budget weights, flops or size"
        )
    refuse_other_numbers(prepared.model)


def refuse_other_numbers(model: nn.Module) -> None:
    """Refuse a model in half or double precision: the kernels take fp32, and choose precisions themselves.

    Raises
    ------
    FewerError
        With the model to give instead.

    Examples
    --------
    >>> refuse_other_numbers(nn.Linear(1, 1).half())
    Traceback (most recent call last):
    fewer.core.errors.FewerError: only models in fp32 can be timed; convert this one with model.float() first
    """
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in model.parameters()):
        raise FewerError("only models in fp32 can be timed; convert this one with model.float() first")
