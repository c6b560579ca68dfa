"""Linear layers whose weight is used by ``F.linear`` without a call of the layer, as in BEiT, EVA and Swin.

No hook meets such a layer, and no kernel can take its place. Here the module around it is watched while it runs: an
``F.linear`` with the weight of one of its layers becomes a call of that layer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["call_linear_layers", "leave_linear_layers"]


class Calls(TorchFunctionMode):
    """While it is active, ``F.linear`` with the weight of a layer calls the layer.

    Parameters
    ----------
    layers
        Layers by the identity of what stands under their name ``weight``, and whether each came with a bias.
    """

    def __init__(self, layers: dict[int, tuple[nn.Module, bool]]) -> None:
        super().__init__()
        self.layers = layers

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            x, weight, bias = _arguments(*args, **kwargs)
            layer, biased = self.layers.get(id(weight), (None, False))
            if layer is not None and not _inside(layer, sys._getframe(1)):
                if not biased:  # what is added here comes on top of a bias that a repair may have given the layer
                    return layer(x) if bias is None else layer(x) + bias
                if bias is getattr(layer, "bias", None):
                    return layer(x)
        return func(*args, **kwargs)


def _arguments(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """What ``F.linear`` was given, by place or by name."""
    return input, weight, bias


def _inside(layer: nn.Module, frame: Any) -> bool:
    """Whether it is the layer itself that calls."""
    return frame.f_locals.get("self") is layer


class Enter:
    """Before a module runs: watch it. A layer that a kernel replaced gets a stand-in for its weight.

    Parameters
    ----------
    biased
        Linear layers among the module's children, by name, and whether they came with a bias.
    """

    def __init__(self, biased: dict[str, bool]) -> None:
        self.biased = biased

    def __call__(self, module: nn.Module, _inputs: Any) -> None:
        layers = {}
        for name, biased in self.biased.items():
            layer = getattr(module, name, None)
            if not isinstance(layer, nn.Module):
                continue
            if not hasattr(layer, "weight"):
                vars(layer)["weight"] = torch.empty(0)
            if not hasattr(layer, "bias"):
                vars(layer)["bias"] = None
            layers[id(layer.weight)] = layer, biased
        Calls(layers).__enter__()

    def needless(self, module: nn.Module) -> bool:
        """Whether the module computes the same when nobody watches it."""
        layers = [(getattr(module, name, None), biased) for name, biased in self.biased.items()]
        return all(isinstance(one, nn.Linear) and (one.bias is not None) == biased for one, biased in layers)


class Leave:
    """After a module ran, or failed: stop watching it."""

    def __call__(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        mode = torch.overrides._get_current_function_mode()  # the one that Enter pushed: calls nest
        assert isinstance(mode, Calls)
        mode.__exit__(None, None, None)


def call_linear_layers(model: nn.Module) -> list[str]:
    """Make every linear layer whose parent may use its weight by itself one that is called, in place.

    A parent is recognised by its code, which reads a name ``weight``. Where it only calls its layers, nothing changes.

    Parameters
    ----------
    model
        Gets hooks on such parents.

    Returns
    -------
    list of str
        Names of the parents.

    Examples
    --------
    >>> class Joint(nn.Module):
    ...     __module__ = "somebody"  # modules of torch and of this library need no watch
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.qkv = nn.Linear(4, 12, bias=False)
    ...     def forward(self, x):
    ...         return F.linear(x, self.qkv.weight, torch.ones(12))
    >>> net = Joint()
    >>> call_linear_layers(net)
    ['']
    >>> seen = []
    >>> _ = net.qkv.register_forward_hook(lambda *_: seen.append("called"))
    >>> net(torch.zeros(2, 4)).shape, seen
    (torch.Size([2, 12]), ['called'])
    """
    names = []
    for name, module in model.named_modules():
        children = module.named_children()
        layers = {own: child.bias is not None for own, child in children if isinstance(child, nn.Linear)}
        if not layers or type(module).__module__.startswith(("torch.nn.", "fewer.")) or not _reads_weights(module):
            continue
        if any(isinstance(hook, Enter) for hook in module._forward_pre_hooks.values()):
            continue
        module.register_forward_pre_hook(Enter(layers))
        module.register_forward_hook(Leave(), always_call=True)
        names.append(name)
    return names


def leave_linear_layers(model: nn.Module) -> nn.Module:
    """Take away what :func:`call_linear_layers` added, where the model computes the same without; gives the same model.

    It stays where a layer that had no bias has got one, or has been replaced by a kernel.

    Examples
    --------
    >>> class Own(nn.Module):
    ...     __module__ = "somebody"
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc = nn.Linear(2, 2)
    ...     def forward(self, x):
    ...         return F.linear(x, self.fc.weight, self.fc.bias)
    >>> net = Own()
    >>> call_linear_layers(net), len(leave_linear_layers(net)._forward_hooks)
    ([''], 0)
    """
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, Enter) and hook.needless(module):
                del module._forward_pre_hooks[key]
                for other, last in list(module._forward_hooks.items()):
                    if isinstance(last, Leave):
                        del module._forward_hooks[other]
                        module._forward_hooks_always_called.pop(other, None)
    return model


def _reads_weights(module: nn.Module) -> bool:
    """Whether a method of the module's class reads something called ``weight``."""
    return any("weight" in code.co_names for code in _codes(type(module)))


def _codes(kind: type) -> Iterator[CodeType]:
    """Code that may run in a forward pass: methods that set a model up read weights as well."""
    for base in kind.__mro__:
        if base.__module__.startswith("torch.nn."):
            return
        for name, own in vars(base).items():
            function: Callable[..., Any] | None = own if callable(own) else getattr(own, "__func__", None)
            code = getattr(function, "__code__", None)
            if code is not None and not any(word in name for word in ("init", "reset", "load")):
                yield code
