"""Compress a model of your own with images from a DataLoader, save it, and load it without the training code.

Run it:  python examples/your_own_model.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fewer


def architecture() -> nn.Module:
    """Your network; the weights do not matter here."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)),
    )


def main() -> None:
    torch.manual_seed(0)
    model = architecture().eval()  # here you would load your checkpoint
    loader = DataLoader(TensorDataset(torch.randn(64, 3, 32, 32), torch.zeros(64)), batch_size=16)

    settings = fewer.Settings(search=8, additivity=4)
    run = fewer.compress(model, loader, "weights=40%,flops=0.6x", settings=settings)

    for name, unit in run.plan.units.items():
        print(f"{name:>4}  {unit.option}")
    for row in sorted(run.report.baselines, key=lambda row: row.distortion):
        print(f"{row.label:<28} distortion {row.distortion:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        run.save(Path(folder) / "run")
        again = fewer.load(Path(folder) / "run", architecture=architecture)
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(again(images), run.model(images))
        print("loaded bit for bit")


if __name__ == "__main__":
    main()
