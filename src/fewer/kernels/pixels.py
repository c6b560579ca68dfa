"""A model that makes its images smaller first, and what is known of that: the cheapest way to make it faster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["fewer_pixels", "pixels_of", "same_pixels", "with_pixels"]


class _Smaller:
    """Called before the model: every image [N, C, H, W] becomes smaller by the same factor along both sides."""

    __name__ = "smaller_images"  # to others, hooks are functions

    def __init__(self, kept: int, of: int) -> None:
        self.kept, self.of = kept, of

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return tuple(self._smaller(a) for a in args), {k: self._smaller(v) for k, v in keywords.items()}

    def _smaller(self, x: Any) -> Any:
        if self.kept == self.of or not (isinstance(x, Tensor) and x.ndim == 4 and x.is_floating_point()):
            return x
        height, width = ((side * self.kept + self.of // 2) // self.of for side in x.shape[-2:])
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


class _Louder:
    """Called after the model: its answer times a number. Networks answer less, or more, loudly to smaller images."""

    __name__ = "louder_answer"

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        return output * self.gain if isinstance(output, Tensor) else output


def fewer_pixels(model: nn.Module, kept: int, of: int, gain: float = 1.0) -> nn.Module:
    """Let a model make its images smaller, ``kept`` pixels of every ``of`` along each side, by linear interpolation.

    Parameters
    ----------
    model
        Changed in place; names of layers and parameters stay as they were. What was set before is replaced.
    kept, of
        Whole numbers; equal ones take the change back.
    gain
        The answer, one tensor, is multiplied by it.

    Returns
    -------
    nn.Module
        The model.

    Examples
    --------
    >>> import torch
    >>> net = fewer_pixels(nn.Conv2d(3, 1, 1), 3, 4)
    >>> tuple(net(torch.zeros(1, 3, 8, 16)).shape), pixels_of(net)
    ((1, 1, 6, 12), (3, 4, 1.0))
    """
    for hooks, kind in ((model._forward_pre_hooks, _Smaller), (model._forward_hooks, _Louder)):
        for key in [k for k, hook in hooks.items() if isinstance(hook, kind)]:
            del hooks[key]
            model._forward_pre_hooks_with_kwargs.pop(key, None)
    if kept != of:
        model.register_forward_pre_hook(_Smaller(kept, of), with_kwargs=True)  # type: ignore[arg-type]
        if gain != 1:
            model.register_forward_hook(_Louder(gain))
    return model


def pixels_of(model: nn.Module) -> tuple[int, int, float] | None:
    """What :func:`fewer_pixels` would have to be told for the same change; None for a model that takes images as given.

    Examples
    --------
    >>> pixels_of(nn.Conv2d(3, 1, 1))
    """
    found = next((h for h in model._forward_pre_hooks.values() if isinstance(h, _Smaller)), None)
    loud = next((h.gain for h in model._forward_hooks.values() if isinstance(h, _Louder)), 1.0)
    return None if found is None else (found.kept, found.of, loud)


def same_pixels(model: nn.Module, other: nn.Module) -> nn.Module:
    """A model that takes images as another one does; it is changed in place.

    Examples
    --------
    >>> pixels_of(same_pixels(nn.ReLU(), fewer_pixels(nn.ReLU(), 3, 4)))
    (3, 4, 1.0)
    """
    pixels = pixels_of(other)
    return fewer_pixels(model, 1, 1) if pixels is None else fewer_pixels(model, *pixels)


def with_pixels(model: nn.Module, pixels: Mapping[str, Any] | None) -> nn.Module:
    """Apply what a plan says about pixels; nothing for None. ``pixels`` holds ``kept``, ``of`` and ``gain``."""
    if not pixels:
        return model
    return fewer_pixels(model, int(pixels["kept"]), int(pixels["of"]), float(pixels.get("gain", 1.0)))
