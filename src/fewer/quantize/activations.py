"""Activations in fewer bits, exactly as the native kernels round them: int8 with one scale for each token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fewer.formats.activations import round_tokens
from fewer.models.inputs import change_input

__all__ = ["round_input", "rounding_inputs", "rounding_inputs_of"]


@contextmanager
def rounding_inputs(modules: Sequence[nn.Module], precision: str) -> Iterator[None]:
    """Linear and convolution layers see their input rounded, inside of a ``with`` block.

    Gradients pass the rounding as if it were not there (straight-through).

    A convolution whose kernel is not 1 x 1 mixes tokens of several pixels: its int8 form takes whole patches, or does
    not exist (it then runs in bf16), so only bf16 rounding is applied to it.

    Examples
    --------
    >>> layer = nn.Linear(3, 1, bias=False)
    >>> with rounding_inputs([layer], "int8"):
    ...     y = layer(torch.tensor([[127.0, 0.4, 1.6]]))
    >>> torch.allclose(y, layer(torch.tensor([[127.0, 0.0, 2.0]])))
    True
    """
    handles = []
    try:
        for module in modules:
            handles.append(round_input(module, precision))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def rounding_inputs_of(layers: Mapping[str, Sequence[nn.Module]]) -> Iterator[None]:
    """:func:`rounding_inputs` for the layers of several precisions at once.

    Examples
    --------
    >>> layer = nn.Linear(3, 1, bias=False)
    >>> with rounding_inputs_of({"int8": [layer], "bf16": []}):
    ...     y = layer(torch.tensor([[127.0, 0.4, 1.6]]))
    >>> torch.allclose(y, layer(torch.tensor([[127.0, 0.0, 2.0]])))
    True
    """
    with ExitStack() as stack:
        for precision, modules in layers.items():
            stack.enter_context(rounding_inputs(modules, precision))
        yield


def round_input(module: Any, precision: str) -> RemovableHandle:
    """Have one layer see its input rounded until the handle is removed, also where it is called as ``layer(input=x)``.

    Examples
    --------
    >>> layer = nn.Linear(3, 1, bias=False)
    >>> handle = round_input(layer, "int8")
    >>> x = torch.tensor([[127.0, 0.4, 1.6]])
    >>> torch.equal(layer(x), layer(input=x))
    True
    """
    kernel = getattr(module, "kernel_size", (1,))
    used = "bf16" if precision == "int8" and max(kernel) > 1 else precision
    axis = 1 if hasattr(module, "kernel_size") else -1

    def rounded(x: torch.Tensor) -> torch.Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return round_tokens(x, used, axis)
        return x + (round_tokens(x, used, axis) - x).detach()

    return change_input(module, rounded)
