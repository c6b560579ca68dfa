"""A small U-Net, trained on chosen images of the simulated lesions, as the judge of a choice.

Used by ``cold_start.py`` (pool ``lesions, trained U-Net``) and ``warm_up.py``. Images are reduced to 64 x 64 pixels;
every training has the same 300 steps of four images, whatever the budget, and keeps its last weights: there are no
labels for picking better ones. The score is the mean Dice of the held-out images, a missed lesion counted as 0.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

SIDE = 64
STEPS = 300
Pictures = Callable[[], list[tuple[np.ndarray, np.ndarray]]]


def settings(seed: int, **more):
    """The network, of about 50,000 parameters, and its training."""
    from fewer.tasks.segment.settings import TrainSettings

    common = {"width": 8, "levels": 4, "patch": (SIDE, SIDE), "batch": 4, "steps": STEPS, "every": STEPS}
    return TrainSettings(**common | {"learning_rate": 2e-3, "seed": seed} | more)


class Trainer:
    """``judge(train, test, seed)``: mean Dice on the test rows, and the share of them above 0.8.

    Parameters
    ----------
    folder
        Where the reduced images lie; they are written there once.
    pictures
        Makes images [224, 224, 3] and masks [224, 224].
    """

    def __init__(self, folder: Path, pictures: Pictures) -> None:
        from fewer.tasks.segment.dataset import open_data

        if not (folder / "finished").exists():
            write(folder, pictures())
        self.data = open_data(folder)
        self.names = [case.name for case in self.data.cases]
        self.images = np.stack([read(case.images[0]) for case in self.data.cases])
        self.masks = np.stack([read(case.mask) for case in self.data.cases if case.mask is not None]) > 0

    def __call__(self, train: np.ndarray, test: np.ndarray, seed: int, **more) -> tuple[float, float]:
        from fewer.tasks.segment.dataset import Split
        from fewer.tasks.segment.training import train as learn

        split = Split(tuple(self.names[row] for row in train), ())
        run = learn(self.data, settings=settings(seed, **more), split=split)
        dice = self.dice(run, test)
        return float(dice.mean()), float((dice > 0.8).mean())

    def dice(self, run, test: np.ndarray) -> np.ndarray:
        """Dice of each test image."""
        import torch

        found = []
        for rows in np.array_split(test, max(1, len(test) // 25)):
            planes = self.images[rows].transpose(0, 3, 1, 2)
            ready = np.stack([run.preparation.normalised(image) for image in planes])
            with torch.no_grad():
                guess = run.model(torch.from_numpy(ready)).argmax(1).numpy() == 1
            both, total = (guess & self.masks[rows]).sum((1, 2)), guess.sum((1, 2)) + self.masks[rows].sum((1, 2))
            found.append(2 * both / np.maximum(total, 1))
        return np.concatenate(found)


def read(path: Path) -> np.ndarray:
    """Pixels of an image file."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def write(folder: Path, pictures: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """The pool at its reduced size, as images/ROW.png and masks/ROW.png."""
    from PIL import Image

    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for row, (image, mask) in enumerate(pictures):
        small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)
        small.save(folder / "images" / f"{row:04d}.png")
        less = np.asarray(Image.fromarray(mask * 255).resize((SIDE, SIDE), Image.Resampling.BOX)) >= 128
        Image.fromarray(less).save(folder / "masks" / f"{row:04d}.png")
    (folder / "finished").touch()
