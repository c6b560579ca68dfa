"""From views to tokens: two small encoders of quality, and any vision encoder of transformers beside them."""

from __future__ import annotations

import math
from hashlib import blake2b
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.models.vit import VisionTransformer
from fewer.tasks.quality.readings import READ
from fewer.tasks.quality.scene import scene_statistics

__all__ = ["Backbone", "ImageEncoder", "QualityEncoder", "StatisticsEncoder"]

_ROOM = 2**29  # bytes of what frozen parts found, kept for images that come again


class _Known:
    """What a part without trained weights made of a view, kept while there is room: a step then costs no image."""

    def __init__(self, room: int = _ROOM) -> None:
        self.room = room
        self._kept: dict[bytes, tuple[Tensor, ...]] = {}

    def __call__(self, pixels: Tensor, make: Any) -> tuple[Tensor, ...]:
        """``make(pixels)``, tensors [N, ...], for pixels [N, 3, H, W] in 0..1; views that are known are left out."""
        whole = (pixels.detach() * 255).round().to(torch.uint8).cpu().numpy()
        keys = [blake2b(view.tobytes(), digest_size=16).digest() for view in whole]
        new = [place for place, key in enumerate(keys) if key not in self._kept]
        fresh: dict[bytes, tuple[Tensor, ...]] = {}
        if new:
            with torch.no_grad():
                made = make(pixels[new])
            for row, place in enumerate(new):
                fresh[keys[place]] = tuple(part[row].clone() for part in made)
        found = [fresh[key] if key in fresh else self._kept[key] for key in keys]
        for key, parts in fresh.items():
            size = sum(part.numel() * part.element_size() for part in parts)
            if size <= self.room:
                self._kept[key] = parts
                self.room -= size
        return tuple(torch.stack(parts).to(pixels.device) for parts in zip(*found, strict=True))


def _silent(inputs: int, outputs: int) -> nn.Linear:
    """A layer that says nothing before it learns, and draws no random number."""
    layer: Any = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class StatisticsEncoder(nn.Module):
    """Statistics of natural scenes, and two small layers that learn to read them.

    Parameters
    ----------
    width
        Of a token; two tokens tell of the whole view, one of each cell.
    grid
        Cells per side.
    dropout
        While it learns.
    judged
        Whether it has a layer that reads how bad each aspect is.

    Examples
    --------
    >>> StatisticsEncoder(16, 2).eval()(torch.zeros(3, 3, 32, 32)).shape
    torch.Size([3, 6, 16])
    """

    WHOLE, CELL = 753, 152

    def __init__(self, width: int = 96, grid: int = 4, dropout: float = 0.36, judged: bool = True) -> None:
        super().__init__()
        self.width, self.grid, self.tokens = width, grid, grid * grid + 2
        for name, size in (("whole", self.WHOLE), ("cell", self.CELL)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        inner = 2 * width
        self.read = nn.Sequential(
            nn.Dropout(dropout * 2 / 3),
            nn.Linear(self.WHOLE, inner),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(inner, inner),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.look = nn.Sequential(nn.Linear(self.CELL + inner, width), nn.GELU())
        self.judge = _silent(inner, len(READ)) if judged else None
        self._known = _Known()

    def settle(self, whole: Tensor, cells: Tensor) -> None:
        """Take mean and deviation of statistics over images [N, ...]; the layers read them in these units."""
        for name, values in (("whole", whole), ("cell", cells.flatten(0, 1))):
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_scale").copy_(values.std(0, correction=0) + 1e-3)

    def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Statistics as they are, of the whole and of cells."""
        whole, cells = self._known(pixels, lambda fresh: scene_statistics(fresh, self.grid))
        return whole, cells

    def tell(self, whole: Tensor, cells: Tensor) -> Tensor:
        """Tokens [N, grid x grid + 2, width] of statistics."""
        whole = ((whole - self.whole_mean) / self.whole_scale).clamp(-5, 5)  # pyright: ignore
        cells = ((cells - self.cell_mean) / self.cell_scale).clamp(-5, 5)  # pyright: ignore
        told = self.read(whole)
        beside = told[:, None].expand(-1, cells.shape[1], -1)
        return torch.cat([told.unflatten(1, (2, self.width)), self.look(torch.cat([cells, beside], 2))], 1)

    def train(self, mode: bool = True) -> StatisticsEncoder:
        """Learn or not; what is frozen gives the same tokens in a training as later, without dropout."""
        return super().train(mode and any(part.requires_grad for part in self.parameters()))

    def readings(self, tokens: Tensor) -> Tensor:
        """How bad each of :data:`~fewer.tasks.quality.readings.READ` is, about -1 to 1, of its tokens."""
        assert self.judge is not None
        return self.judge(tokens[:, :2].flatten(1)).clamp(-3, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens [N, grid x grid + 2, width] of pixels [N, 3, H, W] in 0..1."""
        return self.tell(*self.measure(pixels))


class QualityEncoder(nn.Module):
    """Convolutions on native pixels and on what a blur takes away from them.

    Semantic encoders are trained not to see defects, so this one stands beside them. It gives a grid of tokens and two
    more, the mean and the deviation over the grid.

    Parameters
    ----------
    width
        Channels of the first layer; tokens have four times as many.
    grid
        Tokens per side.

    Examples
    --------
    >>> QualityEncoder(4, 2)(torch.zeros(3, 3, 32, 32)).shape
    torch.Size([3, 6, 16])
    """

    def __init__(self, width: int = 24, grid: int = 4) -> None:
        super().__init__()
        sizes = [6, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(sizes)):
            layers.append(nn.Conv2d(before, after, 3, stride=1 if i == 0 else 2, padding=1))
            # one group over all channels: a norm per channel would take the brightness away
            layers += [nn.GroupNorm(1, after), nn.GELU()] if i else [nn.GELU()]
        self.layers = nn.Sequential(*layers)
        self.grid, self.width = grid, sizes[-1]
        self.tokens = grid * grid + 2

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens [N, grid x grid + 2, width] of pixels [N, 3, H, W] in 0..1."""
        centred = (pixels - 0.5) * 2
        fine = 8 * (pixels - F.avg_pool2d(pixels, 5, 1, 2, count_include_pad=False))
        found = self.layers(torch.cat([centred, fine], 1))
        cells = F.adaptive_avg_pool2d(found, self.grid).flatten(2).transpose(1, 2)
        flat = found.flatten(2)
        return torch.cat([flat.mean(2, keepdim=True), flat.std(2, keepdim=True), cells.transpose(1, 2)], 2).transpose(
            1, 2
        )


class ImageEncoder(nn.Module):
    """Any vision encoder that gives hidden states, such as CLIP, DINOv2 or SigLIP of transformers: frozen by default.

    Parameters
    ----------
    model
        Called with ``pixel_values``; its ``last_hidden_state`` is [N, tokens, width], or [N, width, H, W]. Tokens
        beyond a square number stand in front of the patches, the first one being CLS.
    mean, std
        Of its preprocessing, by channel.
    grid
        Patch tokens are pooled to so many per side; CLS, or the mean where there is none, stands before them.
    frozen
        Its weights do not train.
    """

    def __init__(self, model: nn.Module, width: int, mean: Any, std: Any, grid: int = 4, frozen: bool = True) -> None:
        super().__init__()
        self.model, self.width, self.grid, self.frozen = model, width, grid, frozen
        self.tokens = grid * grid + 1
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        for parameter in model.parameters():
            parameter.requires_grad_(not frozen)
        self._known = _Known()
        self._fixed = 0

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens [N, grid x grid + 1, width] of pixels [N, 3, H, W] in 0..1; a frozen encoder sees no view twice."""
        if self.frozen:
            return self._known(pixels, lambda fresh: (self._tokens(fresh),))[0]
        return self._tokens(pixels)

    def _tokens(self, pixels: Tensor) -> Tensor:
        scaled = (pixels - self.mean) / self.std  # pyright: ignore[reportOperatorIssue]
        found = self._hidden(scaled)
        if found.ndim == 4:
            found = found.flatten(2).transpose(1, 2)
        side = math.isqrt(found.shape[1])
        before = found.shape[1] - side * side
        patches = found[:, before:].transpose(1, 2).unflatten(2, (side, side))
        pooled = F.adaptive_avg_pool2d(patches, self.grid).flatten(2).transpose(1, 2)
        first = found[:, :1] if before else found.mean(1, keepdim=True)
        return torch.cat([first, pooled], 1)

    def _hidden(self, scaled: Tensor) -> Tensor:
        """Hidden states; a model that takes images of one size only is given that size."""
        if not self._fixed:
            try:
                return self.model(pixel_values=scaled).last_hidden_state
            except (ValueError, RuntimeError):
                self._fixed = _side_of(self.model)
                if not self._fixed or scaled.shape[-1] == self._fixed:
                    raise
        resized = F.interpolate(scaled, (self._fixed, self._fixed), mode="bilinear", antialias=True)
        return self.model(pixel_values=resized).last_hidden_state


class Backbone(nn.Module):
    """A built-in network whose output is its tokens, called as those of transformers are.

    Parameters
    ----------
    net
        Takes images of one size, [N, 3, side, side], and gives tokens [N, tokens, width], CLS first.
    name
        Of the table of built-in networks.

    Examples
    --------
    >>> from fewer.models.vit import VisionTransformer
    >>> net = Backbone(VisionTransformer(32, 16, width=24, depth=1, heads=3), "toy")
    >>> net(torch.zeros(2, 3, 40, 40)).last_hidden_state.shape
    torch.Size([2, 5, 24])
    """

    def __init__(self, net: VisionTransformer, name: str) -> None:
        super().__init__()
        self.net, self.name = net, name
        self.width = int(net.cls_token.shape[2])

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        """Tokens, as ``last_hidden_state``."""
        side = self.net.image_size
        if pixel_values.shape[2:] != (side, side):
            pixel_values = F.interpolate(pixel_values, (side, side), mode="bilinear", antialias=True)
        return SimpleNamespace(last_hidden_state=self.net(pixel_values))


def _side_of(model: Any) -> int:
    """Side of the images that a model takes, as its configuration says; 0 where it says none."""
    side = getattr(model.config, "image_size", 0)
    return side if isinstance(side, int) else 0
