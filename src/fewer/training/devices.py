"""Where a training runs: its device, its mixed precision and, under a launcher, its other processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.training.settings import LoopSettings

__all__ = ["any_of", "average_gradients", "check_device", "make_accelerator", "of_first"]


def check_device(settings: LoopSettings) -> None:
    """Tell before any work that the device of the settings is not there.

    Raises
    ------
    FewerError
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise FewerError("there is no CUDA device here; give --device cpu, or auto")


def make_accelerator(settings: LoopSettings) -> Any:
    """An ``Accelerator`` for the device and precision of the settings.

    Raises
    ------
    FewerError
        When the device is not there, or cannot compute in the precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    check_device(settings)
    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier training in this process chose otherwise
    try:
        accelerator = Accelerator(cpu=settings.device == "cpu", mixed_precision=settings.precision)
    except ValueError as error:
        if settings.precision == "no":
            raise
        raise FewerError(
            f"this device cannot train in {settings.precision} ({error}); give --precision bf16, or no"
        ) from None
    if settings.precision == "fp16" and accelerator.device.type == "cpu":  # accelerate would train in fp32, unsaid
        raise FewerError("a CPU does not train in fp16; give --precision bf16, or no")
    return accelerator


def any_of(flag: bool, accelerator: Any) -> bool:
    """Whether a flag is up in any of the processes."""
    if accelerator.num_processes == 1:
        return flag
    raised = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(raised, "sum") > 0)


def of_first(value: float, accelerator: Any) -> float:
    """What the first process holds, so that all of them do the same."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast

    held: Any = broadcast(torch.tensor(value, dtype=torch.float64, device=accelerator.device))
    return float(held)


def average_gradients(parameters: list[nn.Parameter], accelerator: Any) -> None:
    """Mean of the gradients over all processes, where no wrapper of the model does it."""
    if accelerator.num_processes == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.copy_(accelerator.reduce(parameter.grad, "mean"))
