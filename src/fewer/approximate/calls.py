"""Calls of torch's functions that integers can stand for, however their arguments are given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Call", "read_call"]

_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


@dataclass(frozen=True, eq=False)
class Call:
    """One call.

    Attributes
    ----------
    function
        ``softmax``, ``gelu``, ``silu``, ``layer-norm`` or ``rms-norm``.
    form
        Of a softmax: ``rows``, or within ``attention`` or ``multi-head`` attention.
    arguments
        By the names that torch has for them.
    """

    function: str
    form: str
    arguments: Mapping[str, Any]

    @property
    def numbers(self) -> int:
        """That go through the function."""
        a = self.arguments
        if self.form == "attention":
            keys = a["key"].shape[-2]
            return a["query"].shape[:-1].numel() * keys
        if self.form == "multi-head":
            return int(a["query"].shape[:-1].numel() * a["key"].shape[0] * a["num_heads"])
        return a["input"].numel()


@lru_cache(maxsize=1)
def _known() -> dict[Any, tuple[str, str, tuple[str, ...]]]:
    """Function of torch to what it is, its form, and the names of its arguments in order."""
    rows = "input", "dim", "dtype"
    attention = "query", "key", "value", "attn_mask", "dropout_p", "is_causal"
    norm = "input", "normalized_shape", "weight", "bias", "eps"
    rms = "input", "normalized_shape", "weight", "eps"
    return {
        F.softmax: ("softmax", "rows", ("input", "dim", "_stacklevel", "dtype")),
        torch.softmax: ("softmax", "rows", rows),
        torch.special.softmax: ("softmax", "rows", rows),
        Tensor.softmax: ("softmax", "rows", rows),
        F.scaled_dot_product_attention: ("softmax", "attention", attention),
        F.multi_head_attention_forward: ("softmax", "multi-head", tuple(_MULTI_HEAD.parameters)),
        F.gelu: ("gelu", "", ("input",)),
        F.silu: ("silu", "", ("input", "inplace")),
        F.layer_norm: ("layer-norm", "", norm),
        torch.layer_norm: ("layer-norm", "", (*norm, "cudnn_enable")),
        F.rms_norm: ("rms-norm", "", rms),
        torch.rms_norm: ("rms-norm", "", rms),
    }


def read_call(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call | None:
    """What a call of torch is; None for everything else, for norms over several dimensions, and for results that
    are written into a tensor that was given.

    Examples
    --------
    >>> call = read_call(F.softmax, (), {"input": torch.zeros(2, 3), "dim": -1})
    >>> call.function, call.form, call.numbers
    ('softmax', 'rows', 6)
    >>> read_call(torch.relu, (torch.zeros(2),), {}) is None
    True
    """
    try:
        known = _known().get(func)
    except TypeError:  # what has no hash is none of them
        return None
    if known is None:
        return None
    function, form, names = known
    a = {**dict(zip(names, args, strict=False)), **kwargs}
    if "self" in a:
        a["input"] = a.pop("self")
    for unused in ("_stacklevel", "cudnn_enable"):
        a.pop(unused, None)
    if a.pop("out", None) is not None:
        return None
    if form == "multi-head":
        bound = _MULTI_HEAD.bind(**a)
        bound.apply_defaults()
        a = dict(bound.arguments)
    if function.endswith("norm") and len(a["normalized_shape"]) != 1:
        return None
    return Call(function, form, a)
