"""Two simulated domains of discs, bright in one and dark in the other, as a problem for a method and as folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from fewer.adaptation.problem import Problem
from fewer.tasks.segment.adapt_settings import AdaptSettings
from tests.tasks.segment.simulated import picture

SMALL = {
    "steps": 4, "every": 2, "batch": 2, "translator_steps": 2, "translator_width": 4, "translator_patch": 16,
    "width": 4, "levels": 3, "augment": "none",
}  # fmt: skip
"""Settings that take a second."""


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.first(x)))


def pair(seed: int, sign: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    grey, mask = picture(seed, (24, 24))
    image = torch.from_numpy(sign * grey.astype(np.float32))[None]
    return (image - image.mean()) / image.std(), torch.from_numpy(mask)


def problem() -> Problem:
    """Small enough for every method in a second."""
    torch.manual_seed(0)

    def sampler(pairs, stream):
        def batch(step):
            rng = np.random.default_rng([stream, step])
            chosen = [pairs[int(i)] for i in rng.integers(len(pairs), size=2)]
            masks = [torch.zeros(x.shape[1:], dtype=torch.uint8) if y is None else y for x, y in chosen]
            return torch.stack([x for x, _ in chosen]), torch.stack(masks)[:, None]

        return batch

    def logits(model, image):
        with torch.no_grad():
            return model.eval()(image[None])[0]

    source = [pair(i) for i in range(3)]
    return Problem(
        network=TinyNet(),
        dims=2,
        classes=("background", "disc"),
        source=source,
        held=[pair(9)],
        target=[pair(i, -1.0)[0] for i in range(10, 13)],
        sampler=sampler,
        loss=lambda outputs, masks, weights: F.cross_entropy(outputs[0], masks[:, 0].long()),
        scales=lambda output: [output],
        weights=(1.0,),
        logits=logits,
        unlabelled=[pair(5)[0]],
        answers=[pair(i, -1.0) for i in range(10, 13)],
        taps=("second", "first"),
    )


def settings(**more) -> AdaptSettings:
    return AdaptSettings.of({**SMALL, **more})


def write_domains(root: Path, count: int = 5, *, masks: bool = False) -> tuple[Path, Path]:
    """Source (bright discs, with masks) and target (dark discs) as folders of PNG files."""
    for name, sign in (("source", 1), ("target", -1)):
        (root / name / "images").mkdir(parents=True)
        for index in range(count):
            grey, mask = picture(index + (50 if sign < 0 else 0), (32, 32))
            grey = grey if sign > 0 else 255 - grey
            Image.fromarray(grey).save(root / name / "images" / f"c{index}.png")
            if sign > 0 or masks:
                (root / name / "masks").mkdir(exist_ok=True)
                Image.fromarray(mask).save(root / name / "masks" / f"c{index}.png")
    return root / "source", root / "target"
