"""The blocks of a network, and what they give out while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fewer.distillation.losses import block_error
from fewer.models.running import Forward, call, evaluating, tensors_of
from fewer.tokens.blocks import cut_off, restored

__all__ = ["Block", "block_errors", "block_outputs", "find_blocks"]

# a transformer block has four layers, an inverted residual three, a bottleneck of a ResNet four
_MOST_LAYERS = 8


@dataclass(frozen=True)
class Block:
    """A part of a network that takes one tensor and gives one.

    Attributes
    ----------
    name
        Of the module.
    axis
        Axis of the channels of its output: 1 of images, the last of tokens.
    """

    name: str
    axis: int


def find_blocks(model: nn.Module, layers: Sequence[str], example: Any, forward: Forward | None = None) -> list[Block]:
    """Split a network into blocks: the largest modules of at most eight layers that run once, from tensor to tensor.

    Parameters
    ----------
    model
        Left as it is.
    layers
        Names of the layers that hold the weights; a part without any is no block.
    example
        An input.
    forward
        ``forward(model, example)``.

    Returns
    -------
    list of Block
        In the order in which they finish.

    Examples
    --------
    >>> import torch
    >>> part = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> net = nn.Sequential(*(part() for _ in range(5)), nn.Flatten())
    >>> names = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    >>> [block.name for block in find_blocks(net, names, torch.zeros(1, 4))]
    ['0', '1', '2', '3', '4']
    """
    seen: dict[nn.Module, list[tuple[bool, int]]] = {}
    order: list[nn.Module] = []

    def look(module: nn.Module, inputs: Any, keywords: Any, output: Any) -> None:
        plain = isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 1
        plain = plain and len(tensors_of((inputs, keywords))) == 1 and bool(inputs) and isinstance(inputs[0], Tensor)
        seen.setdefault(module, []).append((plain, output.ndim if isinstance(output, Tensor) else 0))
        order.append(module)

    handles = [m.register_forward_hook(look, with_kwargs=True) for m in model.modules()]
    try:
        with evaluating(model):
            call(model, example, forward)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[nn.Module, Block] = {}

    def visit(module: nn.Module, name: str) -> None:
        prefix = f"{name}." if name else ""
        inside = sum(layer == name or layer.startswith(prefix) for layer in layers)
        calls = seen.get(module, [])
        if inside == 0:
            return
        if name and inside <= _MOST_LAYERS and len(calls) == 1 and calls[0][0] and not _is_row(module, prefix, layers):
            found[module] = Block(name, _axis(module, calls[0][1]))
            return
        for child, below in module.named_children():
            visit(below, prefix + child)

    visit(model, "")
    return [found[m] for m in dict.fromkeys(order) if m in found]


def _is_row(module: nn.Module, prefix: str, layers: Sequence[str]) -> bool:
    """Whether a module is nothing but several blocks one after the other."""
    if not isinstance(module, nn.Sequential):
        return False
    children = [sum(layer.startswith(f"{prefix}{name}.") for layer in layers) for name, _ in module.named_children()]
    return sum(count > 1 for count in children) > 1


def _axis(module: nn.Module, ndim: int) -> int:
    """Three axes are tokens with channels last, except behind a one-dimensional convolution; two or more are images."""
    if ndim == 3 and any(isinstance(m, nn.Conv1d) for m in module.modules()):
        return 1
    return -1 if ndim in (2, 3) or _channels_last(module) else 1


def _channels_last(module: nn.Module) -> bool:
    """Swin keeps [samples, height, width, channels]: its blocks have linear layers and no convolution."""
    kinds = [type(m) for m in module.modules()]
    return nn.Linear in kinds and not any(issubclass(k, nn.modules.conv._ConvNd) for k in kinds)


@contextmanager
def block_outputs(model: nn.Module, blocks: Sequence[Block]) -> Iterator[dict[str, Tensor]]:
    """What each block gives out in the forward passes inside of a ``with`` block; the latest counts."""
    outputs: dict[str, Tensor] = {}
    handles = []

    def keep(name: str) -> Callable[..., None]:
        # copied: the next module may work in place
        return lambda _module, _inputs, output: outputs.__setitem__(name, output.detach().clone())

    try:
        for block in blocks:
            handles.append(model.get_submodule(block.name).register_forward_hook(keep(block.name)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _at_places_of(student: Tensor, teacher: Tensor, axis: int) -> Tensor:
    """The teacher's map at the places of a student that sees smaller images; anything else as it is."""
    if axis != 1 or student.ndim != 4 or teacher.ndim != 4 or student.shape[:2] != teacher.shape[:2]:
        return teacher
    if student.shape == teacher.shape:
        return teacher
    size = student.shape[-2:]  # in fp32: torch smooths no map of bf16
    return F.interpolate(teacher.float(), size=size, mode="bilinear", align_corners=False, antialias=True).to(teacher)


@contextmanager
def block_errors(
    model: nn.Module, blocks: Sequence[Block], wanted: dict[str, Tensor], alone: bool
) -> Iterator[list[Tensor]]:
    """Errors of the blocks in the forward passes inside of a ``with`` block, with gradients.

    Parameters
    ----------
    model
        The student.
    blocks
        To look at.
    wanted
        What the teacher's blocks give out, by name. Where the student has merged tokens, each token of the image is
        compared with the merged one that holds it; where it makes its images smaller, the teacher's maps are brought
        to its size. A block of another shape is left out.
    alone
        Cut gradients at the entrance of every block, so that each learns from its own error only, on the inputs that
        the blocks before it really give.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> wanted = {"0": torch.eye(2), "1": torch.eye(2)}
    >>> with block_errors(net, [Block("0", 1), Block("1", 1)], wanted, alone=True) as errors:
    ...     _ = net(torch.eye(2))
    >>> errors[1].backward()
    >>> net[0].weight.grad is None
    True
    """
    errors: list[Tensor] = []
    handles = []

    def cut(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (cut_off(inputs[0]), *inputs[1:])

    def compare(block: Block) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            got = restored(output)
            target = _at_places_of(got, wanted[block.name], block.axis)
            if got.shape == target.shape:
                errors.append(block_error(target, got, block.axis))

        return hook

    try:
        for block in blocks:
            module = model.get_submodule(block.name)
            if alone:
                handles.append(module.register_forward_pre_hook(cut))
            handles.append(module.register_forward_hook(compare(block)))
        yield errors
    finally:
        for handle in handles:
            handle.remove()
