"""A model that makes its images smaller first, and what is known of that: the cheapest way to make it faster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["all_pixels", "fewer_pixels", "pixels_of", "same_pixels", "with_pixels"]


class _Smaller:
    """Called before the model: every image [N, C, H, W] becomes smaller by the same factor along both sides."""

    def __init__(self, kept: int, of: int) -> None:
        self.kept, self.of = kept, of

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return tuple(self._smaller(a) for a in args), {k: self._smaller(v) for k, v in keywords.items()}

    def _smaller(self, x: Any) -> Any:
        if self.kept == self.of or not (isinstance(x, Tensor) and x.ndim == 4 and x.is_floating_point()):
            return x
        height, width = ((side * self.kept + self.of // 2) // self.of for side in x.shape[-2:])
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


def fewer_pixels(model: nn.Module, kept: int, of: int) -> nn.Module:
    """Let a model make its images smaller, ``kept`` pixels of every ``of`` along each side, by linear interpolation.

    Parameters
    ----------
    model
        Changed in place; names of layers and parameters stay as they were. What was set before is replaced.
    kept, of
        Whole numbers; equal ones take the change back.

    Returns
    -------
    nn.Module
        The model.

    Examples
    --------
    >>> import torch
    >>> net = fewer_pixels(nn.Conv2d(3, 1, 1), 3, 4)
    >>> tuple(net(torch.zeros(1, 3, 8, 16)).shape), pixels_of(net)
    ((1, 1, 6, 12), (3, 4))
    """
    hooks = model._forward_pre_hooks
    for key in [k for k, hook in hooks.items() if isinstance(hook, _Smaller)]:
        del hooks[key]
        model._forward_pre_hooks_with_kwargs.pop(key, None)
    if kept != of:
        model.register_forward_pre_hook(_Smaller(kept, of), with_kwargs=True)  # type: ignore[arg-type]
    return model


def pixels_of(model: nn.Module) -> tuple[int, int] | None:
    """What :func:`fewer_pixels` would have to be told for the same change; None for a model that takes images as given.

    Examples
    --------
    >>> pixels_of(nn.Conv2d(3, 1, 1))
    """
    found = next((h for h in model._forward_pre_hooks.values() if isinstance(h, _Smaller)), None)
    return None if found is None else (found.kept, found.of)


def same_pixels(model: nn.Module, other: nn.Module) -> nn.Module:
    """A model that takes images as another one does; it is changed in place.

    Examples
    --------
    >>> pixels_of(same_pixels(nn.ReLU(), fewer_pixels(nn.ReLU(), 3, 4)))
    (3, 4)
    """
    return fewer_pixels(model, *(pixels_of(other) or (1, 1)))


@contextmanager
def all_pixels(model: nn.Module) -> Iterator[None]:
    """Images as they are given while this lasts: every layer then gets what its twin in the dense model gets.

    Examples
    --------
    >>> net = fewer_pixels(nn.ReLU(), 3, 4)
    >>> with all_pixels(net):
    ...     print(pixels_of(net))
    None
    >>> pixels_of(net)
    (3, 4)
    """
    before = pixels_of(model)
    fewer_pixels(model, 1, 1)
    try:
        yield
    finally:
        if before is not None:
            fewer_pixels(model, *before)


def with_pixels(model: nn.Module, pixels: Mapping[str, Any] | None) -> nn.Module:
    """Apply what a plan or curves say about pixels; nothing for None. ``pixels`` holds ``kept`` and ``of``."""
    return model if not pixels else fewer_pixels(model, int(pixels["kept"]), int(pixels["of"]))
