"""What a model computes with, but no file of weights holds: buffers that are not kept, bare tensors, hidden modules.

A saved model is built anew by a function of the user's, and its weights are loaded. Whatever a state dict does not hold
comes from that function; where it is another one there, the loaded model gives other answers in silence. So a few
numbers of each such tensor are kept in the recipe and compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from fewer.core.errors import FewerError

__all__ = ["Print", "aside_of", "check_aside", "steady"]

Print = tuple[float, float, float]
"""How many numbers a tensor has, the sum of their sizes, and a sum with weights that tells one order from another."""

_SAME = 1e-3
"""Relative difference up to which two prints are of one tensor: another machine rounds a sine in another way."""
_DEPTH, _MOST = 3, 200


def aside_of(model: nn.Module) -> dict[str, Print]:
    """Prints of what the state dict of a model does not hold, by name.

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> net.register_buffer("shift", torch.tensor([1.0, -2.0]), persistent=False)
    >>> aside_of(net)["shift"][:2]
    (2.0, 3.0)
    """
    found = {}
    for owner, name, tensor in _aside(model):
        if _plain(tensor):
            found[f"{owner}.{name}".lstrip(".")] = _print(tensor)
        if len(found) == _MOST:
            break
    return found


def steady(before: Mapping[str, Print], after: Mapping[str, Print]) -> dict[str, Print]:
    """Prints of what a call has not changed; a list or dictionary that got longer is a memory of calls.

    Examples
    --------
    >>> steady({"a": (1.0, 1.0, 1.0), "b[0]": (1.0, 1.0, 1.0)}, {"a": (1.0, 1.0, 1.0), "b[0]": (), "b[1]": ()})
    {'a': (1.0, 1.0, 1.0)}
    """
    grown = {name.partition("[")[0] for name in before.keys() ^ after.keys()}
    return {k: told for k, told in before.items() if k.partition("[")[0] not in grown and after[k] == told}


def check_aside(model: nn.Module, told: Mapping[str, Sequence[float]]) -> None:
    """Compare a model that was built again with the prints of the one that was saved.

    A tensor that is not there is made by a call, and no sign of another model.

    Raises
    ------
    FewerError
        Naming a tensor that is another one.

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> net.shift = torch.tensor([1.0])
    >>> check_aside(net, aside_of(net))
    >>> check_aside(net, {"shift": (1.0, 3.0, 3.0)})
    Traceback (most recent call last):
    fewer.core.errors.FewerError: the architecture's 'shift' is another tensor than that of the model ...
    """
    here = aside_of(model) if told else {}
    for name, wanted in told.items():
        if name in here and not _alike(here[name], wanted):
            raise FewerError(
                f"the architecture's {name!r} is another tensor than that of the model that was saved, and no file of "
                "weights holds it, so that the loaded model would give other answers; let architecture= set it as it "
                "was, or make it a parameter, or a buffer that is kept, and save the model again"
            )


def _aside(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    own = set(model.modules())
    kept = {id(one) for one in model.parameters()}
    for owner, module in model.named_modules():
        for name in module._non_persistent_buffers_set:
            if isinstance(tensor := module._buffers.get(name), Tensor):
                yield owner, name, tensor
        for name, value in vars(module).items():
            if name not in _TORCH:
                for inner, tensor in _inside(value, own, _DEPTH):
                    if id(tensor) not in kept:
                        yield owner, f"{name}{inner}", tensor


_TORCH = frozenset(vars(nn.Module()))
"""What every module has: parameters, buffers, modules and hooks."""


def _inside(value: Any, own: Collection[nn.Module], depth: int) -> Iterator[tuple[str, Tensor]]:
    """Tensors in a value, and in the lists, dictionaries and unregistered modules that it is made of."""
    if isinstance(value, Tensor):
        yield "", value
    elif depth and type(value) in (list, tuple):
        for index, one in enumerate(value[:_MOST]):
            yield from ((f"[{index}]{name}", tensor) for name, tensor in _inside(one, own, depth - 1))
    elif depth and type(value) is dict:
        for key, one in list(value.items())[:_MOST]:
            yield from ((f"[{key}]{name}", tensor) for name, tensor in _inside(one, own, depth - 1))
    elif isinstance(value, nn.Module) and value not in own:
        yield from ((f".{name}", tensor) for name, tensor in [*value.named_parameters(), *value.named_buffers()])


def _plain(tensor: Tensor) -> bool:
    strange = isinstance(tensor, UninitializedTensorMixin) or tensor.is_meta or tensor.is_nested or tensor.is_quantized
    return not strange and tensor.layout == torch.strided and tensor.numel() > 0


def _print(tensor: Tensor) -> Print:
    values = tensor.detach().cpu()
    values = (torch.view_as_real(values) if values.is_complex() else values).double().flatten()
    values = values.nan_to_num(0.0, 1e30, -1e30).clamp(-1e30, 1e30)  # masks of attention hold infinity
    weights = torch.cos(torch.arange(len(values), dtype=torch.float64))
    return float(len(values)), float(values.abs().sum()), float((values * weights).sum())


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    room = _SAME * max(one[1], other[1], 1e-12)
    return one[0] == other[0] and all(abs(a - b) <= room for a, b in zip(one[1:], other[1:], strict=True))
