"""A model of sequences that looks at every second frame only, or at fewer: all of its layers work as much less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fewer.core.errors import FewerError

__all__ = ["fewer_frames", "frames_of", "same_frames", "with_frames"]


class _Sparser:
    """Called before the model: of every sequence, the first of every so many frames stays."""

    __name__ = "fewer_frames"  # to others, hooks are functions

    def __init__(self, every: int, axis: int) -> None:
        self.every, self.axis = every, axis

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        given = [x for x in (*args, *keywords.values()) if isinstance(x, Tensor)]
        if len(given) > 1:
            raise FewerError("a model that leaves out frames takes sequences alone, without their lengths or masks")
        return tuple(self._sparser(a) for a in args), {k: self._sparser(v) for k, v in keywords.items()}

    def _sparser(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or x.ndim <= self.axis:
            return x
        return x[(slice(None),) * self.axis + (slice(None, None, self.every),)]


def fewer_frames(model: nn.Module, every: int, axis: int = 1) -> nn.Module:
    """Let a model look at every so manyth frame of its sequences, from the first one on.

    Parameters
    ----------
    model
        Changed in place; names of layers and parameters stay as they were. What was set before is replaced.
    every
        1 takes the change back.
    axis
        Of the frames.

    Returns
    -------
    nn.Module
        The model.

    Examples
    --------
    >>> import torch
    >>> net = fewer_frames(nn.Identity(), 2)
    >>> net(torch.arange(5)[None]).tolist(), frames_of(net)
    ([[0, 2, 4]], (2, 1))
    """
    for key in [k for k, hook in model._forward_pre_hooks.items() if isinstance(hook, _Sparser)]:
        del model._forward_pre_hooks[key]
        model._forward_pre_hooks_with_kwargs.pop(key, None)
    if every != 1:
        model.register_forward_pre_hook(_Sparser(every, axis), with_kwargs=True)  # type: ignore[arg-type]
    return model


def frames_of(model: nn.Module) -> tuple[int, int] | None:
    """What :func:`fewer_frames` would have to be told for the same change; None for a model that sees all frames.

    Examples
    --------
    >>> frames_of(nn.Identity())
    """
    found = next((h for h in model._forward_pre_hooks.values() if isinstance(h, _Sparser)), None)
    return None if found is None else (found.every, found.axis)


def same_frames(model: nn.Module, other: nn.Module) -> nn.Module:
    """A model that leaves out frames as another one does; it is changed in place.

    Examples
    --------
    >>> frames_of(same_frames(nn.ReLU(), fewer_frames(nn.ReLU(), 3)))
    (3, 1)
    """
    return fewer_frames(model, *(frames_of(other) or (1,)))


def with_frames(model: nn.Module, frames: Mapping[str, Any] | None) -> nn.Module:
    """Apply what a plan says about frames; nothing for None. ``frames`` holds ``every`` and ``axis``."""
    return fewer_frames(model, int(frames["every"]), int(frames["axis"])) if frames else model
