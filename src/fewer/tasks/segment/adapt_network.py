"""A segmentation network behind a translator, as LE-UDA uses it, and how a recipe rebuilds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewer.adaptation.style import inside
from fewer.adaptation.translate.networks import Generator
from fewer.adaptation.translate.slices import slice_axis
from fewer.core.errors import FewerError
from fewer.models.monai import monai_network

__all__ = ["TargetFirst", "build_adapted", "check_translatable", "source_of"]

NAME = "target-first"


class TargetFirst(nn.Module):
    """Gives a target image the look of the source, and segments it.

    Parameters
    ----------
    translator
        A :class:`~fewer.adaptation.translate.networks.Generator` of one slice.
    network
        From ``(batch, channels, *space)`` to ``(batch, classes, *space)``.
    axis
        Of space along which slices of whole volumes lie; a patch of one may be shortest along another axis. None takes
        that of what comes in.
    """

    def __init__(self, translator: nn.Module, network: nn.Module, axis: int | None = None) -> None:
        super().__init__()
        self.translator, self.network, self.axis = translator, network, axis

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of target images."""
        if x.ndim == 5:
            axis = (slice_axis(x[0]) if self.axis is None else self.axis) + 2
            planes = x.movedim(axis, 1).flatten(0, 1)
            y = self.translator(planes).unflatten(0, (x.shape[0], x.shape[axis])).movedim(1, axis)
        else:
            y = self.translator(x)
        return self.network(_scaled(x, y))


def _scaled(x: Tensor, y: Tensor) -> Tensor:
    # as Translator.image does, so that test images look like those of the training
    out = torch.empty_like(y)
    for index in range(len(x)):
        for channel in range(x.shape[1]):
            where = inside(x[index, channel])
            new = y[index, channel]
            scaled = (new - new[where].mean()) / new[where].std(correction=0).clamp_min(1e-6)
            out[index, channel] = torch.where(where, scaled, x[index, channel])
    return out


def check_translatable(source: Mapping[str, Any]) -> None:
    """Raise a :class:`FewerError` where a run could not rebuild a network behind a translator.

    Examples
    --------
    >>> check_translatable({"kind": "monai", "name": "DynUNet"})
    """
    if source.get("kind") != "monai":
        raise FewerError(
            "le-uda and mt-uda put a translator before the network, and a run cannot rebuild that for a network of "
            "your own: give --without translation, or one of fewer's own networks (fewer list networks)"
        )


def source_of(model: nn.Module, source: Mapping[str, Any]) -> dict[str, Any]:
    """How a saved run rebuilds a model."""
    if not isinstance(model, TargetFirst):
        return dict(source)
    check_translatable(source)
    g = model.translator
    assert isinstance(g, Generator)
    blocks = len(g.encoder) - 3
    args = {"channels": g.widths[0], "width": g.widths[1], "blocks": blocks, "name": source["name"]}
    if model.axis is not None:
        args["axis"] = model.axis
    return {"kind": "task", "task": "segment", "name": NAME, "args": {**args, "args": source["args"]}}


def build_adapted(name: str, args: Mapping[str, Any]) -> nn.Module:
    """The architecture that :func:`source_of` describes.

    Raises
    ------
    FewerError
        For another name, or a network that no recipe may name.
    """
    from fewer.models.foreign import MONAI_NETWORKS

    if name != NAME:
        raise FewerError(f"the task segment has no network {name!r}")
    if args["name"] not in MONAI_NETWORKS:
        raise FewerError(f"the recipe names MONAI's {args['name']!r}, which no recipe may")
    axis = args.get("axis")  # recipes of older versions have none
    if axis not in (None, 0, 1, 2):
        raise FewerError(f"the recipe names the axis {axis!r} of slices; there are 0, 1 and 2")
    translator = Generator(args["channels"], args["width"], args["blocks"])
    return TargetFirst(translator, monai_network(args["name"], args["args"]), axis)
