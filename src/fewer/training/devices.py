"""Where a training runs: its device, its mixed precision and, under a launcher, its other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.training.settings import LoopSettings

__all__ = [
    "any_of",
    "average_buffers",
    "average_gradients",
    "check_device",
    "make_accelerator",
    "mixed_precision",
    "of_first",
    "process_rank",
    "start_alike",
]


_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""How launchers call the number of processes and the number of this one, in the order in which accelerate reads them:
``torchrun`` and three kinds of ``mpirun``."""


def check_device(settings: LoopSettings) -> None:
    """Tell before any work that the device of the settings, or the other processes of a launcher, are not there.

    Raises
    ------
    FewerError
    """
    _check_launcher()
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise FewerError("there is no CUDA device here; give --device cpu, or auto")


def _check_launcher() -> None:
    """Refuse an environment that speaks of several processes, but not so that they could find each other."""
    for name in (*_COUNTS, "LOCAL_RANK"):
        value = os.environ.get(name)
        if value is not None and not value.strip().removeprefix("-").isdecimal():
            raise FewerError(f"{name}={value!r} in the environment is no number of processes; unset it")
    count = _first_of(_COUNTS)
    if count > 1 and not os.environ.get("MASTER_ADDR") and not torch.distributed.is_mpi_available():
        name = next(name for name in _COUNTS if os.environ.get(name, "").strip() == str(count))
        raise FewerError(
            f"{name}={count} in the environment tells of {count} processes, but nothing tells where they meet "
            f"(MASTER_ADDR); start them with torchrun or accelerate launch, or unset {name}"
        )


def _first_of(names: Sequence[str]) -> int:
    """The first number of the environment that is not negative; 0 without one."""
    values = (os.environ.get(name, "").strip() for name in names)
    return next((int(value) for value in values if value.isdecimal()), 0)


def process_rank() -> int:
    """Number of this process among those of ``torchrun``, ``accelerate launch`` or ``mpirun``; 0 without them.

    A rank counts only beside a number of processes above one, as accelerate sees it: job systems and shells leave the
    variable behind. It is known before an accelerator is made.

    Examples
    --------
    >>> process_rank()
    0
    """
    return _first_of(_RANKS) if _first_of(_COUNTS) > 1 else 0


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


@contextmanager
def mixed_precision(accelerator: Any, *networks: nn.Module) -> Iterator[None]:
    """Products of all that is called within have the precision of the settings; networks give their outputs in fp32.

    Weights are not kept in few digits from one call to the next: torch would hand the copy that was made without
    gradients to a later call that needs them.
    """
    if accelerator.mixed_precision == "no":
        yield
        return
    from accelerate.utils import AutocastKwargs

    with ExitStack() as stack:
        for network in networks:
            stack.callback(network.register_forward_hook(_in_fp32).remove)
        stack.enter_context(accelerator.autocast(AutocastKwargs(cache_enabled=False)))
        yield


def _in_fp32(_network: nn.Module, _given: Any, found: Any) -> Any:
    from accelerate.utils import convert_to_fp32

    return convert_to_fp32(found)


def start_alike(tensors: Sequence[Tensor], accelerator: Any) -> None:
    """Give every process the values that the first one has."""
    if accelerator.num_processes == 1:
        return
    from accelerate.utils import broadcast

    seen: set[int] = set()
    with torch.no_grad():
        for tensor in tensors:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                held: Any = broadcast(tensor.detach().contiguous())
                tensor.copy_(held)


def average_gradients(parameters: Sequence[nn.Parameter], accelerator: Any) -> None:
    """Mean of the gradients over all processes; one that only some of them have counts as zero in the others.

    What no process has a gradient for keeps none: an optimiser would decay it.
    """
    if accelerator.num_processes == 1:
        return
    have = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=accelerator.device)
    for parameter, count in zip(parameters, accelerator.reduce(have, "sum").tolist(), strict=True):
        if parameter.grad is None and count:
            parameter.grad = torch.zeros_like(parameter)
    _average([parameter.grad for parameter in parameters if parameter.grad is not None], accelerator)


def average_buffers(model: nn.Module, accelerator: Any) -> None:
    """Mean of floating-point buffers over all processes, such as the statistics of BatchNorm."""
    if accelerator.num_processes > 1:
        _average([buffer for buffer in model.buffers() if buffer.is_floating_point()], accelerator)


@torch.no_grad()
def _average(tensors: Sequence[Tensor], accelerator: Any) -> None:
    """One message for each kind of number, since many small ones would take longer."""
    kinds = sorted({tensor.dtype for tensor in tensors}, key=str)
    for kind in kinds:
        own = [tensor for tensor in tensors if tensor.dtype == kind]
        mean = accelerator.reduce(torch.cat([tensor.reshape(-1) for tensor in own]), "mean")
        for tensor, part in zip(own, mean.split([tensor.numel() for tensor in own]), strict=True):
            tensor.copy_(part.view_as(tensor))
