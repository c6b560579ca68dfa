"""The shape of a model's answer as JSON, so that a file's list of arrays becomes the tuple or dict that it was."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError

__all__ = ["Outputs", "describe", "flattened", "rebuild"]


class Outputs(dict[str, Any]):
    """A dict whose values are attributes as well, as the answers of model libraries are.

    Examples
    --------
    >>> Outputs(logits=1).logits
    1
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def describe(value: Any) -> tuple[Any, list[Tensor]]:
    """Structure and tensors of an answer, in the order in which an exporter lists them.

    Returns
    -------
    object
        JSON: ``{"tensor": n, "dtype": ...}``, ``{"list": [...]}``, ``{"tuple": [...]}`` (with ``"names"`` where its
        places have names), ``{"dict": {...}}`` or ``{"value": ...}``. An object with attributes, such as a dataclass,
        counts as a dict.
    list of Tensor

    Raises
    ------
    FewerError
        When something in it is neither a container, a tensor, nor a number.

    Examples
    --------
    >>> describe((torch.zeros(1), {"a": torch.ones(2)}))[0]["tuple"][1]
    {'dict': {'a': {'tensor': 1, 'dtype': 'float32'}}}
    """
    tensors: list[Tensor] = []

    def look(part: Any) -> Any:
        if isinstance(part, Tensor):
            tensors.append(part)
            return {"tensor": len(tensors) - 1, "dtype": str(part.dtype).removeprefix("torch.")}
        if isinstance(part, Mapping) or hasattr(part, "items"):
            return {"dict": {str(key): look(item) for key, item in part.items()}}
        if isinstance(part, tuple):
            names = getattr(part, "_fields", None)
            return {"tuple": [look(item) for item in part]} | ({"names": list(names)} if names else {})
        if isinstance(part, list):
            return {"list": [look(item) for item in part]}
        if part is None or isinstance(part, (bool, int, float, str)):
            return {"value": part}
        if _is_object(part):
            return {"dict": {key: look(item) for key, item in vars(part).items()}}
        raise FewerError(f"the model answers with a {type(part).__name__}, which no runtime can give back")

    return look(value), tensors


def _is_object(part: Any) -> bool:
    """Whether something is an object of a class of its own that holds tensors."""
    held = getattr(part, "__dict__", {}).values()
    return not isinstance(part, (type, nn.Module)) and not callable(part) and any(isinstance(v, Tensor) for v in held)


def flattened(model: nn.Module, arguments: Sequence[Tensor]) -> nn.Module:
    """A model that answers with a tuple of tensors where the answer holds an object that no exporter knows.

    Parameters
    ----------
    model
        In evaluation mode. It is given back as it is where exporters take its answer.
    arguments
        Of a call.

    Examples
    --------
    >>> flattened(nn.Identity(), [torch.zeros(1)])
    Identity()
    """
    with torch.no_grad():
        answer = model(*(x.clone() for x in arguments))
    if not _holds_object(answer):
        return model
    twin, usual = copy.copy(model), model.forward

    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(describe(usual(*inputs))[1])

    twin.forward = forward  # the twin shares the modules, so that layers keep their names in the graph
    return twin


def _holds_object(part: Any) -> bool:
    if isinstance(part, Tensor):
        return False
    if isinstance(part, Mapping) or hasattr(part, "items"):
        return any(_holds_object(item) for _, item in part.items())
    if isinstance(part, (tuple, list)):
        return any(map(_holds_object, part))
    return _is_object(part)


def rebuild(structure: Any, tensors: Sequence[Tensor]) -> Any:
    """What :func:`describe` took apart.

    Examples
    --------
    >>> rebuild({"list": [{"tensor": 0, "dtype": "float32"}, {"value": None}]}, [torch.zeros(1)])
    [tensor([0.]), None]
    """
    if "tensor" in structure:
        return tensors[structure["tensor"]].to(getattr(torch, structure["dtype"]))
    if "dict" in structure:
        return Outputs({key: rebuild(part, tensors) for key, part in structure["dict"].items()})
    if "names" in structure:
        parts = [rebuild(part, tensors) for part in structure["tuple"]]
        return namedtuple("Outputs", structure["names"], rename=True)(*parts)
    for name, kind in (("tuple", tuple), ("list", list)):
        if name in structure:
            return kind(rebuild(part, tensors) for part in structure[name])
    return structure["value"]
