"""What a network answers to a batch: scores, maps on the way, and the vector that its last layer reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.distillation.blocks import find_blocks
from fewer.models.running import Forward, call, evaluating

__all__ = ["Answer", "Points", "listening", "points_of"]

_MOST = 3  # maps that are compared


@dataclass
class Answer:
    """What a network gave.

    Attributes
    ----------
    logits
        Scores [N, classes].
    features
        Maps on the way, early ones first: [N, channels, H, W] or [N, tokens, channels].
    embedding
        [N, D]: what the last linear layer read.
    """

    logits: Tensor
    features: list[Tensor] = field(default_factory=list)
    embedding: Tensor | None = None


@dataclass(frozen=True)
class Points:
    """Where a network is listened to: modules whose output is a map, and the last linear layer."""

    features: tuple[str, ...]
    last: str


def points_of(model: nn.Module, example: Any, forward: Forward | None = None) -> Points:
    """Choose where to listen: the last block of each resolution, or blocks at even distances.

    Parameters
    ----------
    model
        Left as it is.
    example
        An input.
    forward
        ``forward(model, example)``.

    Raises
    ------
    FewerError
        When the model has no linear layer.

    Examples
    --------
    >>> import torch
    >>> part = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.ReLU())
    >>> net = nn.Sequential(part(3, 4), part(4, 8), nn.Flatten(), nn.Linear(32, 5))
    >>> points_of(net, torch.zeros(1, 3, 8, 8))
    Points(features=('0', '1'), last='3')
    """
    layers = [name for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    linear = [name for name in layers if isinstance(model.get_submodule(name), nn.Linear)]
    if not linear:
        raise FewerError("the model has no linear layer, whose input distillation by relations compares")
    shapes: dict[str, tuple[int, ...]] = {}
    blocks = [block.name for block in find_blocks(model, layers, example, forward) if block.name not in linear]
    if not blocks:  # a small network is a single block: its parts are listened to
        blocks = [name for name in layers if name not in linear]
    with listening(model, Points(tuple(blocks), linear[-1])) as heard, evaluating(model):
        call(model, example, forward)
    for name, map_ in zip(blocks, heard.features, strict=False):
        shapes[name] = tuple(map_.shape)
    maps = [name for name in blocks if len(shapes.get(name, ())) in (3, 4)]
    by_size: dict[tuple[int, ...], str] = {shapes[name][2:]: name for name in maps if len(shapes[name]) == 4}
    chosen = list(by_size.values())[-_MOST:]
    if len(chosen) < 2 and len(maps) > 1:
        count = min(_MOST, len(maps))
        chosen = [maps[(i + 1) * len(maps) // count - 1] for i in range(count)]
    return Points(tuple(chosen), linear[-1])


@contextmanager
def listening(model: nn.Module, points: Points) -> Iterator[Answer]:
    """Collect features and embedding of the forward passes inside of a ``with`` block; the latest counts.

    ``logits`` is for the caller to fill in.
    """
    heard = Answer(Tensor())
    found: dict[str, Tensor] = {}
    handles = []

    def keep(name: str):
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[name] = output
                heard.features = [found[n] for n in points.features if n in found]

        return hook

    def read(_module: nn.Module, inputs: Sequence[Any]) -> None:
        heard.embedding = inputs[0].flatten(1, -2).mean(1) if inputs[0].ndim > 2 else inputs[0]

    try:
        for name in points.features:
            handles.append(model.get_submodule(name).register_forward_hook(keep(name)))
        handles.append(model.get_submodule(points.last).register_forward_pre_hook(read))
        yield heard
    finally:
        for handle in handles:
            handle.remove()
