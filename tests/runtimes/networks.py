"""Small networks of many kinds, as people write them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NETWORKS", "layers_of"]


class SameConv2d(nn.Conv2d):
    """A convolution whose padding is found from the size of the image, more on the right than on the left."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Functional(nn.Module):
    """Weights that are parameters, and a layer that is called by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3) / 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.relu(self.first(x)), self.weight, padding=1)
        return F.linear(F.relu(x).mean((2, 3)), self.head.weight, self.head.bias)


class Attention(nn.Module):
    """A block of a vision transformer with separate layers for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = (layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Vit(nn.Module):
    """Patches, any blocks, mean, head."""

    def __init__(self, blocks: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.patches, self.blocks, self.head = nn.Conv2d(3, width, 8, 8), blocks, nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class UNet(nn.Module):
    """One step down, one up, one skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.Sequential(nn.Conv2d(24, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        a = self.down(x)
        b = F.interpolate(self.deep(a), scale_factor=2.0, mode="nearest")
        return self.up(torch.cat([a, b], 1))


class Residual(nn.Module):
    """An inverted residual."""

    def __init__(self, conv: type[nn.Conv2d] = nn.Conv2d, **padding: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU6(), conv(24, 24, 3, groups=24, **padding),
            nn.BatchNorm2d(24), nn.ReLU6(), nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Asking(nn.Module):
    """Code as converters write it: shapes are tensors, and are asked about while the model runs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.tokens, self.head = nn.Linear(8, 16), nn.Linear(16, 5)
        self.register_buffer("shape", torch.tensor([-1, 8, 256]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if torch.any(self.shape == 0):
            raise ValueError("no size may be zero")
        x = x.reshape(torch.Size(self.shape.tolist())).transpose(1, 2)
        return self.head(F.gelu(self.tokens(x)).mean(1))


def _inverted() -> nn.Module:
    body = [Residual(SameConv2d), Residual(nn.Conv2d, padding=1)]
    return nn.Sequential(
        SameConv2d(3, 8, 3, 2), nn.ReLU(), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )


def _plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.LeakyReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True, activation="gelu", dropout=0.0)
    return Vit(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


def _made(build: Callable[[], nn.Module], size: int = 33) -> Callable[[], tuple[nn.Module, Tensor]]:
    def make() -> tuple[nn.Module, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, x = build(), torch.randn(2, 3, size, size)
            model.train()
            with torch.no_grad():
                for _ in range(3):
                    model(torch.randn(4, 3, size, size))  # statistics of BatchNorm
                for p in model.parameters():  # clones of a layer shall differ, as trained ones do
                    p.add_(0.02 * torch.randn_like(p))
        return model.eval(), x

    return make


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "convolutions without normalisation": _made(_plain),
    "subclassed convolutions with asymmetric padding": _made(_inverted),
    "functional calls": _made(Functional),
    "separate q, k, v": _made(lambda: Vit(nn.Sequential(Attention(32, 4), Attention(32, 4))), 32),
    "nn.TransformerEncoder": _made(_encoder, 32),
    "U-Net": _made(UNet, 32),
    "shapes that are asked about": _made(Asking, 32),
}


def layers_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Linear layers and convolutions, as a match finds them."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and "self_attn" not in name:
            found[name] = (name,)
    return found
