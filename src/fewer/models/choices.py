"""Choices that a network makes on its way, such as the boxes that a detector's second stage looks into.

Where two networks look into different places, their layers behind cannot be compared row by row, and a small change
before such a choice looks like a large one behind it. So while a network is compressed, its copies make the choices
that it made itself on the same input. A network takes part by having ``makes_choices = True`` and asking
:meth:`Choices.first` in its forward pass; what users call afterwards chooses freely again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Choices", "choose_freely", "remember_choices", "share_choices"]

_MOST = 4096
"""Inputs whose choices are kept; the ones that were asked for longest ago go first."""

T = TypeVar("T")


class Choices:
    """What was chosen first for each input; shared by a network and all of its copies.

    Examples
    --------
    >>> import copy, torch
    >>> choices = Choices()
    >>> twin, x = copy.deepcopy(choices), torch.ones(2)
    >>> choices.first(x, "a"), twin.first(x, "b"), twin.first(2 * x, "b")
    ('a', 'a', 'b')
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most, self._known = most, OrderedDict[bytes, Any]()

    def __deepcopy__(self, memo: Any) -> Choices:
        return self

    def __reduce__(self) -> Any:
        return Choices, (self._most,), {"_known": self._known}  # another process goes on with what was chosen here

    def __len__(self) -> int:
        return len(self._known)

    def first(self, sample: Tensor, own: T) -> T:
        """What was chosen when this sample was seen first; ``own``, if that is now.

        Parameters
        ----------
        sample
            One input; its values count, not where they lie.
        own
            What the network would choose.
        """
        raw = sample.detach().cpu().reshape(-1).view(torch.uint8)  # numpy has no bf16
        key = hashlib.blake2b(raw.numpy().tobytes(), digest_size=16).digest()
        found = self._known.setdefault(key, own)
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return found


def _choosing(model: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in model.named_modules() if getattr(module, "makes_choices", False))


def remember_choices(model: nn.Module) -> nn.Module:
    """From now on, a network and its copies choose for each input what was chosen first; gives the same model.

    Examples
    --------
    >>> remember_choices(nn.Linear(1, 1))  # most networks choose nothing
    Linear(in_features=1, out_features=1, bias=True)
    """
    for _, module in _choosing(model):
        module.choices = Choices()
    return model


def share_choices(model: nn.Module, original: nn.Module) -> nn.Module:
    """Let a network choose what another one of the same modules has chosen; gives the same model."""
    theirs = dict(_choosing(original))
    for name, module in _choosing(model):
        module.choices = theirs[name].choices if name in theirs else None
    return model


def choose_freely(model: nn.Module) -> nn.Module:
    """Forget what was chosen before; gives the same model."""
    for _, module in _choosing(model):
        module.choices = None
    return model
