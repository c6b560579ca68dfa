"""Tiny nets that every method must cope with. ``tiny(name)`` gives a seeded model and an example batch of it.

The classes stand at module level so that a fresh process can build them again: ``tests.tiny:ConvNet`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.models.vit import VisionTransformer


class ConvNet(nn.Module):
    """Plain, grouped and depthwise convolutions with BatchNorm and in-place ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=4),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 24, 1),
        )
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))


class DictOutput(nn.Module):
    """Returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.boxes = nn.Linear(8, 4)
        self.scores = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pooled = F.relu(self.conv(x)).mean(dim=(2, 3))
        return {"boxes": self.boxes(pooled), "scores": self.scores(pooled)}


class TupleOutput(nn.Module):
    """Returns (tensor, list of tensors)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)])
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = []
        for stage in self.stages:
            x = F.relu(stage(x))
            maps.append(x)
        return self.head(x.mean(dim=(2, 3))), maps


class Tied(nn.Module):
    """Two linear layers that share one weight parameter (not the bias)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.second = nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.second(F.gelu(self.first(x)))))


class CalledTwice(nn.Module):
    """One ReLU module and one linear module, each used twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 24)
        self.mix = nn.Linear(24, 24)
        self.relu = nn.ReLU()
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = x + self.relu(self.mix(x))
        return self.head(self.mix(x))


class Conv1dNet(nn.Module):
    """Signals: [N, 2, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 12, 5, padding=2)
        self.second = nn.Conv1d(12, 16, 3, stride=2, groups=4)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x)))).mean(dim=2))


class Conv3dNet(nn.Module):
    """Volumes: [N, 1, 8, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm3d(8)
        self.second = nn.Conv3d(8, 12, 3, stride=2, padding=1, bias=False)
        self.head = nn.Conv3d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.norm(self.first(x))))))


class InPlace(nn.Module):
    """Functional in-place operations on layer outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x += F.relu_(self.branch(x.relu()))
        x *= 0.5
        return self.head(x.mean(dim=(2, 3)))


class NeverCalled(nn.Module):
    """Holds a layer that the forward does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(16, 8)
        self.auxiliary = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class DictChildren(nn.Module):
    """Children in a ModuleDict, run in an order that is not that of registration."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"head": nn.Linear(12, 4), "body": nn.Linear(12, 12), "stem": nn.Linear(16, 12)})

    def forward(self, x: Tensor) -> Tensor:
        for name in ("stem", "body", "head"):
            x = self.parts[name](F.relu(x))
        return x


def TinyViT() -> nn.Module:
    """A two-block Vision Transformer with layer scale and a head."""
    return VisionTransformer(
        image_size=16, patch_size=8, width=24, depth=2, heads=3, mlp_ratio=2.0, num_classes=5, layer_scale=0.5
    )


_IMAGES, _ROWS = (4, 3, 16, 16), (4, 16)
TINY: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv": (ConvNet, _IMAGES),
    "vit": (TinyViT, _IMAGES),
    "dict-output": (DictOutput, _IMAGES),
    "tuple-output": (TupleOutput, _IMAGES),
    "tied": (Tied, _ROWS),
    "called-twice": (CalledTwice, _ROWS),
    "conv1d": (Conv1dNet, (4, 2, 64)),
    "conv3d": (Conv3dNet, (2, 1, 8, 8, 8)),
    "in-place": (InPlace, _IMAGES),
    "never-called": (NeverCalled, _ROWS),
    "dict-children": (DictChildren, _ROWS),
}


def tiny(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A tiny model in evaluation mode and an example batch, both seeded; the global generator is left alone.

    BatchNorm statistics, scales and shifts are made uneven, so that a method that forgets them is found out.
    """
    make, shape = TINY[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
        example = torch.randn(shape)
    model.example = example  # type: ignore[assignment]
    return model.eval(), example
