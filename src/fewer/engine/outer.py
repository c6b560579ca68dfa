"""Outer choices: what changes the work of all layers at once, such as merged tokens, fewer pixels or fewer frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fewer.core.curve import CurveSet
from fewer.kernels.frames import with_frames
from fewer.kernels.pixels import with_pixels
from fewer.tokens.blocks import with_merging

__all__ = ["OUTER", "outer_of", "with_outer"]

OUTER = ("tokens", "pixels", "frames")
"""Keys of ``CurveSet.meta`` under which it is kept what was taken."""


def outer_of(curves: CurveSet) -> dict[str, Any]:
    """What was taken of the outer choices, by key; empty where nothing was."""
    return {key: curves.meta[key] for key in OUTER if curves.meta.get(key)}


def with_outer(model: nn.Module, outer: Mapping[str, Any] | None) -> nn.Module:
    """Apply what :func:`outer_of` gives to a model, in place."""
    outer = outer or {}
    return with_frames(with_pixels(with_merging(model, outer.get("tokens")), outer.get("pixels")), outer.get("frames"))
