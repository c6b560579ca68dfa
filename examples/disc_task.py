"""A task of your own in 80 lines: where is the disc? Trained, scored, and compressed with its error before and after.

The data are simulated: grey pictures of one bright disc in noise. Run it as it is, or install it for the command line
with the entry point of docs/tasks.md, and type: fewer train discs.npz --task disc --out run/
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn

import fewer
from fewer.engine.settings import Settings
from fewer.tasks import register_task
from fewer.tasks.arrays import Arrays, ArrayTask
from fewer.training.settings import LoopSettings


class DiscSettings(LoopSettings):
    """Settings become flags by themselves: --width is one."""

    width: int = Field(default=8, ge=1, description="Channels of the first layer.")
    steps: int = Field(default=150, ge=1, description="Steps of the training.")
    learning_rate: float = Field(default=0.01, gt=0, description="Rate at the first step; it falls to 0.")
    batch: int = Field(default=32, ge=1, description="Pictures per step.")


class Disc(ArrayTask):
    """The centre of a disc as (x, y), each from 0 to 1."""

    name, note = "disc", "the centre of a disc (an example)"
    data = "an .npz with the arrays images [N, S, S] and centres [N, 2]"
    settings = DiscSettings
    lower_is_better = frozenset({"mean error", "worst error"})

    def recognises(self, data: Any) -> bool:
        """By name alone; nothing is opened."""
        return Path(data).name.startswith("discs") and Path(data).suffix == ".npz"

    def read(self, data: Path) -> Arrays:
        """Inputs [N, 1, S, S] and targets [N, 2]."""
        with np.load(data, allow_pickle=False) as found:
            return Arrays(found["images"][:, None].astype(np.float32), found["centres"].astype(np.float32))

    def network_args(self, data: Arrays, settings: DiscSettings) -> tuple[str, dict[str, Any]]:
        """What the run folder keeps of the network."""
        return "small", {"width": settings.width, "side": int(data.inputs.shape[-1])}

    def network(self, name: str, args: Mapping[str, Any]) -> nn.Module:
        """Built again from that, whenever the run is opened."""
        wide, rest = 2 * args["width"], -(-args["side"] // 4)
        maps = [nn.Conv2d(1, args["width"], 3, 2, 1), nn.ReLU(), nn.Conv2d(args["width"], wide, 3, 2, 1), nn.ReLU()]
        return nn.Sequential(*maps, nn.Flatten(), nn.Linear(wide * rest**2, 32), nn.ReLU(), nn.Linear(32, 2))

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Squared distance."""
        return (outputs - targets).square().sum(1).mean()

    def measure(self, outputs: np.ndarray, targets: np.ndarray) -> Mapping[str, float]:
        """Distances in shares of the side."""
        far = np.linalg.norm(outputs - targets, axis=1)
        return {"mean error": far.mean(), "worst error": far.max()}


def simulate(file: Path, count: int = 240, side: int = 16, seed: int = 0) -> Path:
    """Write simulated pictures."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.25, 0.75, (count, 2))
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    far = np.hypot(x - centres[:, 0, None, None], y - centres[:, 1, None, None])
    images = 1.0 * (far < 0.2) + rng.normal(0, 0.1, far.shape)
    np.savez(file, images=images.astype(np.float32), centres=centres.astype(np.float32))
    return file


if __name__ == "__main__":
    torch.set_num_threads(1)
    register_task(Disc)
    place = Path(tempfile.mkdtemp())
    data = simulate(place / "discs.npz")
    print("trained:", fewer.train(data, out=place / "run").lines())
    print("scored:", fewer.evaluate(place / "run", data).lines())
    quick = Settings(calibration=32, sensing=8, heldout=16, additivity=0, baselines=("uniform",), workers=1)
    small = fewer.compress(str(place / "run"), data, "weights=15%", settings=quick, quality=data, out=place / "small")
    for row in small.report.verdict.quality:
        if row.labelled:
            print(f"{row.name}: {row.dense:.4f} before, {row.value:.4f} with 15 % of the weights ({row.note})")
