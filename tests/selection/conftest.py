"""A pool of small pictures, and a file with a tiny network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NET = """
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 7)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(7, 4)), {"input_size": (3, 16, 16)}


def nan():
    model, settings = net()
    model[4].weight.data.fill_(float("nan"))
    return model, settings
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    """Spec of a network whose penultimate layer has seven outputs."""
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:net"


def draw(path: Path, kind: int, seed: int) -> None:
    """A picture of one of a few kinds: flat colours with a little noise."""
    rng = np.random.default_rng([kind, seed])
    colour = np.random.default_rng(kind).integers(0, 120, 3)
    pixels = np.clip(colour + rng.normal(0, 12, (20, 24, 3)), 0, 255).astype(np.uint8)
    pixels[4:12, 4:12] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Twenty-four pictures of four kinds in two folders."""
    for index in range(24):
        draw(tmp_path / "pool" / "ab"[index % 2] / f"{index:02d}.png", index % 4, index)
    return tmp_path / "pool"
