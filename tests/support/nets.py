"""A small net and images for the tests of verbs, and a way to sense them quickly."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewer.core.curve import CurveSet
from fewer.core.progress import SILENT
from fewer.engine.prepare import prepare
from fewer.engine.sense import Sensed, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.models.vit import VisionTransformer


class Small(nn.Module):
    """Convolution, BatchNorm, two linear layers; it stands in a module, so that other processes can build it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc, self.head = nn.Linear(8, 12), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.fc(self.norm(self.conv(x)).relu().mean((2, 3))).relu())


def small(seed: int = 0) -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Small()
        net.norm.running_mean.normal_(std=0.3)
        net.norm.running_var.uniform_(0.5, 2)
        return net.eval()


def transformer(width: int = 16) -> VisionTransformer:
    """A Vision Transformer of one block for images of 16 pixels, with weights wide enough that its functions matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = VisionTransformer(16, 4, width=width, depth=1, heads=2, num_classes=5)
        for parameter in net.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
    return net.eval()


def images(count: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


QUICK: dict[str, Any] = {
    "sparsities": (0.25, 0.5, 0.75, 0.9),
    "calibration": 21,
    "sensing": 7,
    "heldout": 4,
    "batch": 2,
    "search": 0,
    "additivity": 0,
    "baselines": (),
    "backend": "serial",
    "rounds": 2,
}


def quick(**changes: Any) -> Settings:
    return Settings(**{**QUICK, **changes})


def sense_small(settings: Settings, net: nn.Module | None = None, ledger: Path | None = None, **kwargs: Any) -> Sensed:
    prepared = prepare(
        net or small(), images(), settings, kwargs.pop("forward", None), distance=kwargs.pop("distance", None)
    )
    return sense_curves(Work(prepared, settings, kwargs.pop("progress", SILENT)), ledger_path=ledger, **kwargs)


def distortion(curves: CurveSet) -> torch.Tensor:
    return torch.cat([torch.as_tensor(c.distortion) for c in curves.curves])
