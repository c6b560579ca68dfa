"""A model that writes into its input or into its own buffers gives the same answer at every call, nevertheless."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fewer.models.running import copied, put_samples_first

__all__ = ["Guard", "guard", "unguard"]

Place = tuple[str, str]


@dataclass(eq=False)
class Guard:
    """A hook before each call of a model: its input is copied, and what earlier calls wrote is put back.

    It is copied with its model, so that every copy stays guarded until :func:`unguard`.

    Attributes
    ----------
    inputs
        Whether the model writes into its input.
    state
        (module, name) -> value of each buffer or tensor that a call changes, as it was before any call.
    """

    inputs: bool
    state: dict[Place, Tensor] = field(default_factory=dict)

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.restore(model)
        return (copied(args), copied(kwargs)) if self.inputs else None

    def restore(self, model: nn.Module) -> None:
        """Put back what calls have changed."""
        with torch.no_grad():
            for (owner, name), value in self.state.items():
                module = model.get_submodule(owner)
                if name in module._buffers:
                    module._buffers[name] = value.clone()
                else:
                    vars(module)[name] = value.clone()


def guard(model: nn.Module, *, inputs: bool, state: Mapping[Place, Tensor]) -> None:
    """Guard a model; one that needs no guard stays as it is.

    Examples
    --------
    >>> class Writes(nn.Module):
    ...     def forward(self, x):
    ...         return x.add_(1)
    >>> net, x = Writes(), torch.zeros(1)
    >>> guard(net, inputs=True, state={})
    >>> net(x), x
    (tensor([1.]), tensor([0.]))
    """
    if inputs or state:
        kept = {place: value.detach().clone() for place, value in state.items()}
        model.register_forward_pre_hook(Guard(inputs, kept), with_kwargs=True, prepend=True)


def unguard(model: nn.Module) -> nn.Module:
    """Take the guard away and leave no trace of calls; gives the same model."""
    for key, hook in list(model._forward_pre_hooks.items()):
        if isinstance(hook, Guard):
            hook.restore(model)
            del model._forward_pre_hooks[key]
            model._forward_pre_hooks_with_kwargs.pop(key, None)
    put_samples_first(model)
    return model
