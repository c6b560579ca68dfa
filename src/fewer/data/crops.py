"""Endless views of few images, for training: each step draws its own, and the same ones every time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.data.decode import random_box, read_image, to_array
from fewer.data.preprocess import Preprocess
from fewer.data.samples import Samples

__all__ = ["FileViews", "SampleViews", "TensorViews"]

_MEMORY_BYTES = 1 << 30  # of decoded images that are kept
_ROOMY = 4  # an image this many times larger than the input is made smaller once, and not at every draw


class FileViews:
    """Views of image files: random crops, or the whole image in turns with them; half are mirrored.

    Parameters
    ----------
    files
        Image files. One that cannot be read is left out from then on.
    preprocess
        Of the model.
    seed
        Of files, crops and mirroring.
    whole
        Show every file as the model is given it (shorter side resized, centre) in every second pass over the files,
        the first one among them. With files enough for that, views that look like the images to come teach more than
        crops do.

    Raises
    ------
    FewerError
        When there is no file, or none can be read.

    Examples
    --------
    >>> views = FileViews(["a.jpg", "b.jpg"], Preprocess(), seed=0)
    >>> views.draw(0, 4).shape  # doctest: +SKIP
    torch.Size([4, 3, 224, 224])
    """

    def __init__(self, files: Sequence[str | Path], preprocess: Preprocess, seed: int = 0, whole: bool = False) -> None:
        if not files:
            raise FewerError("the list of images is empty; give at least one file")
        self.files, self.preprocess, self.seed = [Path(file) for file in files], preprocess, seed
        self.whole = whole
        self.broken: dict[Path, str] = {}
        self._decoded: dict[Path, Image.Image] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.files)

    def draw(self, step: int, count: int) -> Tensor:
        """The images of a step, float32 [count, C, H, W]; every file once before any comes again."""
        rows = [self._view(step * count + index) for index in range(count)]
        return torch.from_numpy(np.stack(rows))

    def _view(self, index: int) -> np.ndarray:
        epoch, place = divmod(index, len(self.files))
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.files))
        rng = np.random.default_rng([self.seed, 2, index])
        # a broken file gives its place to the next one, so that the others stay where they are
        for shift in range(len(self.files)):
            path = self.files[order[(place + shift) % len(self.files)]]
            image = self._open(path)
            if image is not None:
                whole = self.whole and epoch % 2 == 0
                box = None if whole else random_box(image.size, self.preprocess.input_size[1:], rng)
                array = to_array(image, self.preprocess, box)
                mirrored = rng.random() < 0.5 and not (whole and epoch == 0)
                return np.ascontiguousarray(array[..., ::-1]) if mirrored else array
        path, reason = next(iter(self.broken.items()))
        raise FewerError(f"none of the {len(self.files)} images can be read any more; the first: {path}: {reason}")

    def _open(self, path: Path) -> Image.Image | None:
        if path in self.broken:
            return None
        if path in self._decoded:
            return self._decoded[path]
        try:
            image = read_image(path)
        except Exception as error:  # a broken file can make a decoder raise anything
            self.broken[path] = str(error) or type(error).__name__
            return None
        room = _ROOMY * max(self.preprocess.input_size[1:])
        if min(image.size) > room:
            factor = room / min(image.size)
            image = image.resize((round(image.width * factor), round(image.height * factor)), reducing_gap=2.0)
        size = image.width * image.height * len(image.getbands()) * (4 if image.mode == "F" else 1)
        if self._bytes + size <= _MEMORY_BYTES:
            self._decoded[path] = image
            self._bytes += size
        return image


class TensorViews:
    """Random views of images that came as a tensor; other inputs (signals, volumes, rows) are drawn as they are.

    Parameters
    ----------
    images
        Shape [N, ...]; of images, which have 1 or 3 channels and at least 32 pixels a side, crops of 40 to 100 % of
        the area are resized to the full size, and half are mirrored.
    seed
        Of every choice.

    Examples
    --------
    >>> TensorViews(torch.zeros(5, 7)).draw(0, 3).shape
    torch.Size([3, 7])
    """

    def __init__(self, images: Tensor, seed: int = 0) -> None:
        if not len(images):
            raise FewerError("the images are empty; give at least one")
        self.images, self.seed = images, seed
        self.are_photos = images.ndim == 4 and images.shape[1] in (1, 3) and min(images.shape[2:]) >= 32

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, step: int, count: int) -> Tensor:
        """The images of a step, [count, ...]."""
        return torch.stack([self._view(step * count + index) for index in range(count)])

    def _view(self, index: int) -> Tensor:
        epoch, place = divmod(index, len(self.images))
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.images))
        image = self.images[int(order[place])]
        if not self.are_photos:
            return image
        rng = np.random.default_rng([self.seed, 2, index])
        height, width = image.shape[1:]
        side = float(np.sqrt(rng.uniform(0.4, 1.0)))
        h, w = max(1, round(height * side)), max(1, round(width * side))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        crop = image[None, :, top : top + h, left : left + w]
        full = F.interpolate(crop, (height, width), mode="bilinear", align_corners=False, antialias=True)[0]
        return full.flip(-1) if rng.random() < 0.5 else full


class SampleViews:
    """Samples of any shape, drawn as they are; what a view of one could be, nothing here knows.

    Parameters
    ----------
    samples
        To draw from.
    seed
        Of the order.

    Examples
    --------
    >>> from fewer.data.samples import TensorSamples
    >>> len(SampleViews(TensorSamples(torch.zeros(5, 7))).draw(0, 3))
    3
    """

    def __init__(self, samples: Samples, seed: int = 0) -> None:
        if not len(samples):
            raise FewerError("the inputs are empty; give at least one sample")
        self.samples, self.seed = samples, seed

    def __len__(self) -> int:
        return len(self.samples)

    def draw(self, step: int, count: int) -> Samples:
        """The samples of a step; every one once before any comes again."""
        positions = []
        for index in range(step * count, (step + 1) * count):
            epoch, place = divmod(index, len(self.samples))
            order = np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.samples))
            positions.append(int(order[place]))
        return self.samples.take(positions)
