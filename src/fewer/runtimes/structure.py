"""The shape of a model's answer as JSON, so that a file's list of arrays becomes the tuple or dict that it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewer.core.errors import FewerError

__all__ = ["Outputs", "describe", "rebuild"]


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
        JSON: ``{"tensor": n, "dtype": ...}``, ``{"list": [...]}``, ``{"tuple": [...]}``, ``{"dict": {...}}`` or
        ``{"value": ...}``.
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
            return {"tuple": [look(item) for item in part]}
        if isinstance(part, list):
            return {"list": [look(item) for item in part]}
        if part is None or isinstance(part, (bool, int, float, str)):
            return {"value": part}
        raise FewerError(f"the model answers with a {type(part).__name__}, which no runtime can give back")

    return look(value), tensors


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
    for name, kind in (("tuple", tuple), ("list", list)):
        if name in structure:
            return kind(rebuild(part, tensors) for part in structure[name])
    return structure["value"]
