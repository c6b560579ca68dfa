"""What a model's forward takes, and what to give where that is not what a batch of inputs has."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["advice", "arguments_of"]


def arguments_of(model: nn.Module) -> tuple[str, ...] | None:
    """Names of the arguments of a model's forward; None where it takes any.

    Examples
    --------
    >>> arguments_of(nn.Linear(1, 1))
    ('input',)
    """
    parameters = inspect.signature(model.forward).parameters.values()
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        return None
    return tuple(p.name for p in parameters)


def advice(model: nn.Module, batch: Any) -> str:
    """How to call a model whose forward does not take a batch as it is; empty where it does, or nobody can tell.

    Parameters
    ----------
    model
        Any module.
    batch
        A tensor, ``*tuple`` or ``**mapping``.

    Examples
    --------
    >>> class Named(nn.Module):
    ...     def forward(self, *, pixels, scale=1.0):
    ...         return pixels
    >>> advice(Named(), 3.0)
    "its forward takes 'pixels' by name only; in Python give forward=lambda model, batch: model(pixels=batch), or ...
    >>> advice(nn.Identity(), 3.0)
    ''
    """
    names, values = ({}, batch) if isinstance(batch, (tuple, list)) else ({}, (batch,))
    if isinstance(batch, Mapping):
        names, values = dict(batch), ()
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*values, **names)
    except TypeError:
        pass
    else:
        return ""
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    every = [p for p in signature.parameters.values() if p.kind not in several]
    needed = [p for p in every if p.default is p.empty]
    named = [p for p in needed if p.kind is p.KEYWORD_ONLY]
    by_place = [p for p in every if p.kind is not p.KEYWORD_ONLY]
    if not every or not (named or len(needed) > 1 or not by_place or isinstance(batch, Mapping)):
        return ""
    shown = needed or every[:1]
    how = "needs" if by_place or not named else "takes"
    told = f"its forward {how} {' and '.join(repr(p.name) for p in shown)}"
    told += " by name only" if all(p.kind is p.KEYWORD_ONLY for p in shown) else ""
    first, *rest = shown
    given = f"{first.name}=batch" if first.kind is first.KEYWORD_ONLY else "batch"
    call = ", ".join([given, *(f"{p.name}=..." if p.kind is not p.POSITIONAL_ONLY else "..." for p in rest)])
    entries = ", ".join(f"{p.name!r}: ..." for p in shown)
    return (
        f"{told}; in Python give forward=lambda model, batch: model({call}), or inputs as a dictionary {{{entries}}}; "
        "on the command line give FILE.py:FUNCTION, whose module takes images alone and calls it so"
    )
