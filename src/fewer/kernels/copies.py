"""Copies of somebody's module, and evaluation mode, whatever its class makes of both."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedBuffer  # type: ignore[attr-defined]

from fewer.core.errors import FewerError
from fewer.data.samples import leaves

__all__ = ["copied_module", "set_evaluating", "shared_copy"]


def copied_module(model: nn.Module) -> nn.Module:
    """``copy.deepcopy``, also of a module that keeps tensors with a gradient history; those are copied by value.

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> net.double = net.weight * 2
    >>> copied_module(net).double.is_leaf
    True
    """
    return _copied(model, {})


def shared_copy(model: nn.Module) -> nn.Module:
    """A copy with modules and hooks of its own that holds the very parameters of the model: it costs no memory.

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> twin = shared_copy(net)
    >>> twin is net, twin.weight is net.weight
    (False, True)
    """
    return _copied(model, {id(parameter): parameter for parameter in model.parameters()})


def _copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    for module in model.modules():
        for tensor in leaves(dict(vars(module))):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
            elif isinstance(tensor, UninitializedBuffer):  # torch copies parameters without a shape, but no buffers
                make: Any = UninitializedBuffer
                memo[id(tensor)] = make(False, device=tensor.device, dtype=tensor.dtype)
    return copy.deepcopy(model, memo)


def set_evaluating(model: nn.Module) -> nn.Module:
    """Put a model into evaluation mode and give it back; its own ``eval`` or ``train`` may give anything, or nothing.

    Examples
    --------
    >>> set_evaluating(nn.Linear(1, 1)).training
    False
    """
    try:
        model.eval()
    except Exception as error:  # train() may be somebody's own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FewerError(
            f"the model cannot be put into evaluation mode: its eval() or train() raises {type(error).__name__}: "
            f"{reason[:200]}"
        ) from error
    return model
