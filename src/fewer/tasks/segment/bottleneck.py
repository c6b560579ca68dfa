"""The latent features of a segmentation network: where its bottleneck is, and a function from images to vectors."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError

__all__ = ["Bottleneck", "Embedder", "find_bottleneck"]


@dataclass(frozen=True)
class Bottleneck:
    """The deepest place of a network.

    Attributes
    ----------
    module
        Name of the module whose output is the bottleneck.
    encoder
        Names of the modules that ran up to there and hold parameters of their own.
    width
        Channels of its output.
    """

    module: str
    encoder: tuple[str, ...]
    width: int


def find_bottleneck(model: nn.Module, example: Tensor) -> Bottleneck:
    """Find the last layer, in the order of execution, whose output has the fewest places in space.

    It stands for the largest block around it that ends with it, so that a residual sum is taken and a concatenation
    with earlier features is not. Outputs of a single place (as those of squeeze-and-excitation) are left out if there
    are others.

    Parameters
    ----------
    model
        Any network.
    example
        Shape ``(batch, channels, *space)``.

    Raises
    ------
    FewerError
        When no module puts out a tensor with the axes of the example.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(4, 1, 1))
    >>> find_bottleneck(net, torch.zeros(1, 1, 8, 8))
    Bottleneck(module='1', encoder=('0',), width=4)
    """
    finished: list[tuple[str, int, int]] = []  # name, places (0: of another kind), channels
    handles = []

    def watch(name: str) -> Any:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            fits = isinstance(output, Tensor) and output.ndim == example.ndim and output.shape[0] == example.shape[0]
            finished.append((name, prod(output.shape[2:]), output.shape[1]) if fits else (name, 0, 0))

        return note

    was = model.training
    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(watch(name)))
    try:
        model.eval()
        with torch.no_grad():
            model(example)
    finally:
        model.train(was)
        for handle in handles:
            handle.remove()
    sizes = {places for _, places, _ in finished if places}
    if not sizes:
        raise FewerError("the network has no layer whose output is an image, so it has no bottleneck")
    smallest = min(sizes - {1} or sizes)
    leaves = {name for name, module in model.named_modules() if next(module.children(), None) is None}
    deepest = [i for i, (name, places, _) in enumerate(finished) if places == smallest and name in leaves]
    last = deepest[-1] if deepest else max(i for i, (_, places, _) in enumerate(finished) if places == smallest)
    for index in range(last + 1, len(finished)):  # a block finishes after what is inside of it
        name, places, channels = finished[index]
        if not (finished[last][0].startswith(f"{name}.") and (places, channels) == finished[last][1:]):
            break
        last = index
    own = {name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))}
    encoder = dict.fromkeys(name for name, _, _ in finished[: last + 1] if name in own)
    return Bottleneck(finished[last][0], tuple(encoder), finished[last][2])


class Embedder:
    """From a batch of images to one vector each: mean and deviation of the bottleneck over space.

    Any function of this kind can stand in its place, for example a frozen DINOv2. The mean alone, as in SAAL's released
    code, says little of networks with instance normalisation, which takes the mean of every image away.

    Parameters
    ----------
    model
        A network, warmed up or trained; put into evaluation mode while it is used.
    example
        Shape ``(1, channels, *space)``, to find the bottleneck with.
    pool
        ``mean+std`` or ``mean``.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2))
    >>> Embedder(net, torch.zeros(1, 1, 8, 8))(torch.zeros(5, 1, 16, 16)).shape
    torch.Size([5, 8])
    """

    def __init__(self, model: nn.Module, example: Tensor, pool: str = "mean+std") -> None:
        if pool not in ("mean", "mean+std"):
            raise FewerError(f"features are pooled by mean or mean+std; got {pool!r}")
        self.model, self.place, self.pool = model, find_bottleneck(model, example), pool

    @property
    def width(self) -> int:
        """Numbers per vector."""
        return self.place.width * (2 if self.pool == "mean+std" else 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Vectors (images, width), float32, on the CPU; without gradients."""
        was = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                device = next((p.device for p in self.model.parameters()), images.device)
                return self.features(images.to(device)).float().cpu()
        finally:
            self.model.train(was)

    def features(self, images: Tensor) -> Tensor:
        """The same with gradients, in whatever mode the model is."""
        found: list[Tensor] = []
        module = self.model.get_submodule(self.place.module)

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found.append(output)

        handle = module.register_forward_hook(keep)
        try:
            self.model(images)
        finally:
            handle.remove()
        features = found[-1].flatten(2)
        if self.pool == "mean":
            return features.mean(2)
        return torch.cat([features.mean(2), features.std(2, unbiased=False)], 1)
