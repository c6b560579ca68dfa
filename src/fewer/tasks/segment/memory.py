"""How much memory a training will take, before it starts: what the backward pass needs is counted, not guessed."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.memory import free_memory
from fewer.reports.numbers import data_size

__all__ = ["Memory", "available_memory", "check_memory", "estimate_memory", "saved_bytes"]

BACKWARD = 2
"""What is saved, and as much again: gradients on their way, workspace of convolutions, gaps of the allocator."""
LOSS_COPIES = 6
"""Copies of the logits that a loss holds: softmax, one-hot target, products and their gradients."""


@dataclass(frozen=True)
class Memory:
    """Bytes by purpose.

    Attributes
    ----------
    weights
        Parameters and buffers, their gradients, and what the optimiser keeps.
    activations
        Saved for the backward pass of the whole batch, as much again to work with, and the loss.
    cases
        Prepared images and masks that stay in memory.
    """

    weights: int
    activations: int
    cases: int

    def total(self, device: str = "cpu") -> int:
        """Bytes on the device that trains; cases lie in main memory.

        Examples
        --------
        >>> Memory(1, 2, 4).total("cpu"), Memory(1, 2, 4).total("cuda")
        (7, 3)
        """
        return self.weights + self.activations + (self.cases if device == "cpu" else 0)


def saved_bytes(model: nn.Module, example: Tensor) -> int:
    """Bytes of the tensors that autograd saves in a forward pass, each storage once, without the parameters.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    >>> saved_bytes(net, torch.zeros(2, 4))  # the input, and the output of ReLU
    96
    """
    own = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()._cdata
        if place not in own:
            kept[place] = tensor  # held, so that no other storage takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
        output = model(example)
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del output
    return found


def estimate_memory(
    model: nn.Module, shape: tuple[int, ...], classes: int, *, cases: int = 0, moments: int = 2, half: bool = False
) -> Memory:
    """Estimate what one training step holds at its peak.

    Parameters
    ----------
    model
        Is not changed and not run: a copy without memory is.
    shape
        ``(batch, channels, *patch)``.
    classes
        Outputs of the network.
    cases
        Bytes of prepared cases.
    moments
        Numbers that the optimiser keeps per parameter.
    half
        Whether activations have two bytes.

    Examples
    --------
    >>> estimate_memory(nn.Conv2d(1, 2, 3, padding=1, bias=False), (4, 1, 16, 16), 2).weights  # 18 weights, 4 times
    288
    """
    own = sum(p.numel() * p.element_size() for p in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    try:
        ghost = copy.deepcopy(model).to("meta").train()
        saved = saved_bytes(ghost, torch.zeros(shape, device="meta"))
    except Exception:  # some networks look at values; one image is then run for real
        live = copy.deepcopy(model).train()
        saved = saved_bytes(live, torch.zeros(1, *shape[1:], device=next(live.parameters()).device)) * shape[0]
    logits = 4 * shape[0] * classes * prod(shape[2:])
    saved = BACKWARD * (saved // 2 if half else saved)
    return Memory(own * (2 + moments) + buffers, saved + LOSS_COPIES * logits, cases)


def available_memory(device: str = "cpu") -> int | None:
    """Free bytes of a device; None where that cannot be found out.

    Examples
    --------
    >>> (available_memory() or 1) > 0
    True
    """
    if device != "cpu":
        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    return free_memory()


def check_memory(memory: Memory, device: str = "cpu", free: int | None = None) -> str:
    """A sentence that says what training needs and what there is.

    Raises
    ------
    FewerError
        When it needs more than there is.

    Examples
    --------
    >>> check_memory(Memory(10**6, 10**6, 0), free=10**9)
    'training needs about 2.00 MB of memory (weights 1.00 MB, activations 1.00 MB, images 0 bytes); 1.00 GB is free'
    """
    free = available_memory(device) if free is None else free
    need = memory.total(device)
    parts = f"weights {data_size(memory.weights)}, activations {data_size(memory.activations)}"
    told = f"training needs about {data_size(need)} of memory ({parts}, images {data_size(memory.cases)})"
    if free is None:
        return told
    if need > free:
        raise FewerError(
            f"{told}, but only {data_size(free)} is free; give a smaller --batch, --patch-voxels, --width or --cache"
        )
    return f"{told}; {data_size(free)} is free"
