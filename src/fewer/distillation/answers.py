"""What a network answers to a batch: scores, maps on the way, and the vector that its last layer reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fewer.distillation.blocks import find_blocks
from fewer.models.inputs import layer_input
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
        [N, D]: what the last layer read, the mean over tokens or pixels where it reads several.
    """

    logits: Tensor
    features: list[Tensor] = field(default_factory=list)
    embedding: Tensor | None = None

    def in_fp32(self) -> Answer:
        """The same in full precision: sums over maps and distances lose too much in half of it.

        Examples
        --------
        >>> import torch
        >>> Answer(torch.zeros(1, 2, dtype=torch.bfloat16)).in_fp32().logits.dtype
        torch.float32
        """
        embedding = None if self.embedding is None else self.embedding.float()
        return Answer(self.logits.float(), [x.float() for x in self.features], embedding)


@dataclass(frozen=True)
class Points:
    """Where a network is listened to: modules whose output is a map, and the last linear layer or convolution."""

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

    Examples
    --------
    >>> import torch
    >>> part = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.ReLU())
    >>> net = nn.Sequential(part(3, 4), part(4, 8), nn.Flatten(), nn.Linear(32, 5))
    >>> points_of(net, torch.zeros(1, 3, 8, 8))
    Points(features=('0', '1'), last='3')
    """
    layers = [name for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    last = _last_layer(model, example, forward)
    linear = {name for name in layers if isinstance(model.get_submodule(name), nn.Linear)}
    shapes: dict[str, tuple[int, ...]] = {}
    found = [block.name for block in find_blocks(model, layers, example, forward)]
    # what holds the last layer gives scores, and no map on the way
    blocks = [name for name in found if name not in linear and not f"{last}.".startswith(f"{name}.")]
    if not blocks:  # a small network is a single block: its parts are listened to
        blocks = [name for name in layers if name not in linear and name != last]
    with listening(model, Points(tuple(blocks), last)) as heard, evaluating(model):
        call(model, example, forward)
    for name, map_ in zip(blocks, heard.features, strict=False):
        shapes[name] = tuple(map_.shape)
    maps = [name for name in blocks if len(shapes.get(name, ())) in (3, 4)]
    by_size: dict[tuple[int, ...], str] = {shapes[name][2:]: name for name in maps if len(shapes[name]) == 4}
    chosen = list(by_size.values())[-_MOST:]
    if len(chosen) < 2 and len(maps) > 1:
        count = min(_MOST, len(maps))
        chosen = [maps[(i + 1) * len(maps) // count - 1] for i in range(count)]
    return Points(tuple(chosen), last)


def _last_layer(model: nn.Module, example: Any, forward: Forward | None) -> str:
    """The linear layer or convolution that runs last, which is not always the one that was made last; or nothing."""
    ran: list[str] = []
    handles = []
    for name, module in model.named_modules():
        if name and isinstance(module, (nn.Linear, _ConvNd)):

            def note(_module: nn.Module, _inputs: tuple[Any, ...], name: str = name) -> None:
                ran.append(name)

            handles.append(module.register_forward_pre_hook(note))
    try:
        with evaluating(model):
            call(model, example, forward)
    finally:
        for handle in handles:
            handle.remove()
    return ran[-1] if ran else ""


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

    def read(module: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        x = layer_input(inputs, keywords)
        if x.ndim > 2:
            x = x.flatten(1, -2).mean(1) if isinstance(module, nn.Linear) else x.flatten(2).mean(2)
        heard.embedding = x

    try:
        for name in points.features:
            handles.append(model.get_submodule(name).register_forward_hook(keep(name)))
        if points.last:
            handles.append(model.get_submodule(points.last).register_forward_pre_hook(read, with_kwargs=True))
        yield heard
    finally:
        for handle in handles:
            handle.remove()
