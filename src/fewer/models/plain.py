"""A copy of somebody's module that may be run, cut and saved: its own tensors, weights that are plain parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from fewer.core.errors import FewerError
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.models.attention import open_attention
from fewer.models.functional import call_linear_layers
from fewer.models.strangers import refuse_strangers

__all__ = ["fold_weights", "make_plain", "own_copy", "uncompiled"]


def own_copy(model: nn.Module) -> nn.Module:
    """A deep copy with its own parameters, buffers and hooks, in which every weight is a plain parameter of a layer.

    ``copy.deepcopy`` refuses a module that keeps a tensor with a gradient history, as ``weight_norm`` and
    ``torch.nn.utils.prune`` do after a forward pass; such tensors are copied by their value here.

    Raises
    ------
    FewerError
        When the module holds something that cannot be copied, such as an open file, or a layer of
        :func:`fewer.models.strangers.refuse_strangers`.

    Examples
    --------
    >>> net = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
    >>> type(own_copy(net)) is nn.Linear, parametrize.is_parametrized(net)
    (True, True)
    """
    refuse_strangers(model)
    try:
        twin = copied_module(model)
    except Exception as error:  # a module may hold anything, and its __deepcopy__ may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FewerError(
            f"the model cannot be copied, and the original is never changed ({reason}); take out of it what "
            "copy.deepcopy cannot copy, such as open files and locks, or give FILE.py:FUNCTION that builds it"
        ) from error
    _refuse_shared(model, twin)
    flags = [(module, module.training) for module in twin.modules()]
    # spectral norm turns its vectors in training mode
    make_plain(set_evaluating(twin))
    for module, flag in flags:
        module.training = flag
    return twin


def uncompiled(model: nn.Module) -> nn.Module:
    """The module inside of what ``torch.compile`` gives: compiled code runs no layer that could be watched or cut.

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> uncompiled(torch.compile(net)) is net, uncompiled(net) is net
    (True, True)
    """
    inner = getattr(model, "_orig_mod", None)
    return inner if type(model).__name__ == "OptimizedModule" and isinstance(inner, nn.Module) else model


def _refuse_shared(model: nn.Module, twin: nn.Module) -> None:
    """Refuse a model whose copy is made of modules or tensors of the original: a cut of one would be one of both."""
    own, places = set(model.modules()), {_place(one) for one in [*model.parameters(), *model.buffers()]} - {0}
    for name, module in twin.named_modules():
        tensors = [*module._parameters.values(), *module._buffers.values()]
        if module in own or any(_place(one) in places for one in tensors if one is not None):
            where = f"layer {name!r}" if name else "the model"
            raise FewerError(
                f"a copy of {where} ({type(module).__name__}) holds weights of the original, which is never changed; "
                "its __deepcopy__ hands them out: take that method away, or give FILE.py:FUNCTION that builds the model"
            )


def _place(tensor: Tensor) -> int:
    """Where a tensor's numbers are; 0 where it has none."""
    return 0 if isinstance(tensor, UninitializedTensorMixin) else tensor.untyped_storage().data_ptr()


def make_plain(model: nn.Module) -> nn.Module:
    """Make every weight a plain parameter of a layer that is called, in place.

    Computed weights are folded, attention is opened, and linear layers whose weight is used by itself are called. What
    is saved of a model, and what is built to load it again, must both have gone through this.

    Examples
    --------
    >>> net = make_plain(nn.TransformerEncoderLayer(8, 2, 16))
    >>> type(net.self_attn).__name__
    'PlainAttention'
    """
    fold_weights(model)
    open_attention(model)
    call_linear_layers(model)
    return model


def fold_weights(model: nn.Module) -> list[str]:
    """Make plain parameters of weights that are computed from others, in place; give the names of their layers.

    Known are ``weight_norm`` and ``spectral_norm`` of ``torch.nn.utils`` in both forms (hooks and parametrizations),
    any other parametrization, and ``torch.nn.utils.prune``. The module computes the same.

    Raises
    ------
    FewerError
        When a weight cannot be folded.

    Examples
    --------
    >>> net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3)).eval())
    >>> fold_weights(net), [name for name, _ in net.named_parameters()]
    (['0'], ['0.bias', '0.weight'])
    """
    folded = []
    with torch.no_grad():
        for name, module in list(model.named_modules()):
            try:
                if _fold(module):
                    folded.append(name)
            except Exception as error:  # a parametrization is somebody's own code
                raise FewerError(
                    f"the weight of layer {name!r} is computed from other parameters and cannot be made a plain one "
                    f"({error}); do so before, for example with torch.nn.utils.parametrize.remove_parametrizations"
                ) from error
    return folded


def _fold(module: nn.Module) -> bool:
    found = parametrize.is_parametrized(module)
    if found:
        _fold_parametrizations(module)
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)
            for key, wrapped in list(module._load_state_dict_pre_hooks.items()):  # torch leaves it where it is wrapped
                if isinstance(getattr(wrapped, "hook", wrapped), SpectralNormLoadStateDictPreHook):
                    del module._load_state_dict_pre_hooks[key]
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)
        else:
            continue
        found = True
    return found


def _fold_parametrizations(module: Any) -> None:
    # not by remove_parametrizations: it takes the weight away from the class, which the caller's module shares
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
    trained = {name: list(module.parametrizations[name].parameters()) for name in values}
    plain = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    module.__class__ = plain
    for name, value in values.items():
        if trained[name]:
            flag = any(parameter.requires_grad for parameter in trained[name])
            module.register_parameter(name, nn.Parameter(value, requires_grad=flag))
        else:
            module.register_buffer(name, value)


def state_of(model: nn.Module) -> dict[tuple[str, str], Tensor]:
    """Every tensor that a module holds outside of its parameters, by module and name: buffers and plain attributes."""
    found = {}
    for name, module in model.named_modules():
        for key, value in [*module._buffers.items(), *vars(module).items()]:
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                found[name, key] = value
    return found
