"""Batches of a training: random images of a set, with the usual changes, the same for the same seed and step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.core.progress import Progress
from fewer.data.decode import random_box, to_array
from fewer.data.preprocess import Preprocess
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.settings import TrainSettings

__all__ = ["Augmented"]

LARGE = 64
"""From this side on, random crops of the original are taken; below, images shifted by up to an eighth of the side."""
HELD = 4 << 30
"""Bytes of decoded images that are kept; of larger sets, images are decoded whenever they are drawn."""


class Augmented:
    """Images of some rows of a set, decoded once where memory allows, drawn and changed at random.

    Every epoch sees each image once, in an order of its own; a batch depends on the seed and its step alone, so that
    a training that was interrupted goes on as if it had not been.
    """

    def __init__(
        self, data: ClassifyData, rows: np.ndarray, preprocess: Preprocess, settings: TrainSettings, progress: Progress
    ) -> None:
        self.data, self.preprocess, self.settings = data, preprocess, settings
        self.crops = min(preprocess.input_size[1:]) >= LARGE and settings.augment == "standard"
        fits = len(rows) * 4 * int(np.prod(preprocess.input_size)) <= HELD
        good, arrays = [], []
        if fits:
            with progress.stage("read", len(rows)) as stage:
                for row in rows:
                    try:
                        arrays.append(to_array(data.pictures[int(row)], preprocess))
                        good.append(int(row))
                    except FewerError:
                        raise
                    except Exception:  # a broken file can make a decoder raise anything; doctor names it
                        pass
                    stage.advance(1)
            if not good:
                raise FewerError(f"none of the {len(rows)} images of {data.root} can be read; see: fewer doctor")
        self.rows = np.array(good) if fits else np.asarray(rows)
        self.held = torch.from_numpy(np.stack(arrays)) if fits else None
        self.labels = torch.from_numpy(data.labels[self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images [n, C, H, W] and labels [n] of a step."""
        size, n = min(self.settings.batch, len(self)), len(self)
        per_epoch = max(1, n // size)
        epoch, number = divmod(step, per_epoch)
        order = np.random.default_rng([self.settings.seed, 2, epoch]).permutation(n)
        chosen = order[number * size : (number + 1) * size]
        rng = np.random.default_rng([self.settings.seed, 3, step])
        images = torch.stack([self._changed(int(i), rng) for i in chosen])
        return images, self.labels[chosen]

    def plain(self, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        """All images as they are."""
        for start in range(0, len(self), size):
            chosen = range(start, min(start + size, len(self)))
            yield torch.stack([self._image(i) for i in chosen]), self.labels[start : start + size]

    def _image(self, index: int) -> Tensor:
        if self.held is not None:
            return self.held[index]
        return torch.from_numpy(to_array(self.data.pictures[int(self.rows[index])], self.preprocess))

    def _changed(self, index: int, rng: np.random.Generator) -> Tensor:
        if self.settings.augment == "none":
            return self._image(index)
        flip = rng.random() < 0.5
        if self.crops:
            picture = self.data.pictures[int(self.rows[index])]
            box = random_box(picture.size, self.preprocess.input_size[1:], rng)
            image = torch.from_numpy(to_array(picture, self.preprocess, box))
        else:
            image = self._image(index)
            if self.settings.augment == "standard":
                image = _shifted(image, max(1, image.shape[-1] // 8), rng)
        return image.flip(-1) if flip else image


def _shifted(image: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """The image moved by up to ``most`` pixels each way; what comes in is the mirror of what is there."""
    padded = torch.nn.functional.pad(image[None], (most,) * 4, mode="reflect")[0]
    top, left = (int(n) for n in rng.integers(0, 2 * most + 1, 2))
    return padded[:, top : top + image.shape[1], left : left + image.shape[2]]
