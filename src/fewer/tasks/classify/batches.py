"""Batches of a training: random images of a set, with the usual changes, the same for the same seed and step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.core.progress import Progress
from fewer.data.decode import random_box, to_array
from fewer.data.preprocess import Preprocess
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.pictures import Pictures, pixels_of
from fewer.tasks.classify.settings import TrainSettings

__all__ = ["Augmented", "exact_pixels", "moved", "normalised"]

LARGE = 64
"""From this side on, random crops of the original are taken; below, images shifted by up to an eighth of the side."""
HELD = 4 << 30
"""Bytes of decoded images that are kept; of larger sets, images are decoded whenever they are drawn."""


class Augmented:
    """Images of some rows of a set, decoded once where memory allows, drawn and changed at random.

    Every epoch sees each image once, in an order of its own; a batch depends on the seed and its step alone, so that
    a training that was interrupted goes on as if it had not been. Pixels that already have the size of the input are
    kept as bytes and become numbers batch by batch.

    Attributes
    ----------
    skipped
        Images that cannot be read, and why: by name. Of a set that is decoded as it is drawn, those met so far.
    """

    def __init__(
        self, data: ClassifyData, rows: np.ndarray, preprocess: Preprocess, settings: TrainSettings, progress: Progress
    ) -> None:
        self.data, self.preprocess, self.settings = data, preprocess, settings
        self.crops = min(preprocess.input_size[1:]) >= LARGE and settings.augment == "standard"
        self.rows = np.asarray(rows)
        self.held: Tensor | None = None
        self.skipped: dict[str, str] = {}
        size = len(self.rows) * int(np.prod(preprocess.input_size))
        if size <= HELD:
            self.held = exact_pixels(data.pictures, self.rows, preprocess)
        if self.held is None and 4 * size <= HELD:
            self.rows, self.held = self._decoded(progress)
        self.labels = torch.from_numpy(data.labels[self.rows])
        self._order: tuple[int, np.ndarray] = (-1, self.rows)

    def _decoded(self, progress: Progress) -> tuple[np.ndarray, Tensor]:
        """Rows that can be read, and their images."""
        good, arrays = [], []
        with progress.stage("read", len(self.rows)) as stage:
            for row in self.rows:
                try:
                    arrays.append(to_array(self.data.pictures[int(row)], self.preprocess))
                    good.append(int(row))
                except FewerError:
                    raise
                except Exception as error:  # a broken file can make a decoder raise anything
                    self._skip(int(row), error)
                stage.advance(1)
        if not good:
            raise FewerError(f"none of the {len(self.rows)} images of {self.data.root} can be read; see: fewer doctor")
        return np.array(good), torch.from_numpy(np.stack(arrays))

    def __len__(self) -> int:
        return len(self.rows)

    def _skip(self, row: int, error: Exception) -> None:
        self.skipped[self.data.names[row]] = str(error) or type(error).__name__

    def _readable(self, chosen: np.ndarray) -> tuple[np.ndarray, list[Image.Image]]:
        """Images that are drawn from files; in the place of one that cannot be read stands the next one that can."""
        places, pictures = [], []
        for place in chosen:
            for offset in range(len(self)):
                at = (int(place) + offset) % len(self)
                row = int(self.rows[at])
                if self.data.names[row] in self.skipped:
                    continue
                try:
                    pictures.append(self.data.pictures[row])
                except FewerError:
                    raise
                except Exception as error:  # a broken file can make a decoder raise anything
                    self._skip(row, error)
                    continue
                places.append(at)
                break
            else:
                raise FewerError(f"none of the images of {self.data.root} can be read; see: fewer doctor")
        return np.array(places), pictures

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images [n, C, H, W] and labels [n] of a step."""
        size, n = min(self.settings.batch, len(self)), len(self)
        per_epoch = max(1, n // size)
        epoch, number = divmod(step, per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.settings.seed, 2, epoch]).permutation(n)
        chosen = self._order[1][number * size : (number + 1) * size]
        rng = np.random.default_rng([self.settings.seed, 3, step])
        pictures: list[Image.Image] | None = None
        if self.crops or not self._in_memory(chosen):
            chosen, pictures = self._readable(chosen)
        return self._changed(chosen, pictures, rng), self.labels[chosen]

    def plain(self, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        """All images as they are."""
        for start in range(0, len(self), size):
            chosen = np.arange(start, min(start + size, len(self)))
            pictures = None
            if not self._in_memory(chosen):
                read = [self._readable(np.array([place])) for place in chosen]
                # of these every image counts once: the one that stands in for another is left out
                good = [(at[0], one[0]) for place, (at, one) in zip(chosen, read, strict=True) if at[0] == place]
                if not good:
                    continue
                chosen, pictures = np.array([at for at, _ in good]), [one for _, one in good]
            yield self._numbers(self._images(chosen, pictures)), self.labels[chosen]

    def _in_memory(self, chosen: np.ndarray) -> bool:
        """Whether images are kept, or lie in arrays, so that no file is read."""
        if self.held is not None:
            return True
        return exact_pixels(self.data.pictures, self.rows[chosen[:1]], self.preprocess) is not None

    def _images(self, chosen: np.ndarray, pictures: list[Image.Image] | None = None) -> Tensor:
        """Some images, as bytes or as numbers; ``pictures`` where they were read from files."""
        if pictures is not None:
            return torch.from_numpy(np.stack([to_array(picture, self.preprocess) for picture in pictures]))
        if self.held is not None:
            return self.held[torch.from_numpy(chosen)]
        pixels = exact_pixels(self.data.pictures, self.rows[chosen], self.preprocess)
        assert pixels is not None  # arrays of one shape
        return pixels

    def _numbers(self, images: Tensor) -> Tensor:
        """What the network sees; the very numbers of ``to_array``."""
        return images if images.dtype == torch.float32 else normalised(images, self.preprocess)

    def _changed(self, chosen: np.ndarray, pictures: list[Image.Image] | None, rng: np.random.Generator) -> Tensor:
        if self.settings.augment == "none":
            return self._numbers(self._images(chosen, pictures))
        flips = rng.random(len(chosen)) < 0.5
        if self.crops:
            assert pictures is not None
            shape = self.preprocess.input_size[1:]
            boxes = [random_box(picture.size, shape, rng) for picture in pictures]
            arrays = [to_array(picture, self.preprocess, box) for picture, box in zip(pictures, boxes, strict=True)]
            images, most = torch.from_numpy(np.stack(arrays)), 0
        else:
            images = self._images(chosen, pictures)
            most = max(1, images.shape[-1] // 8) if self.settings.augment == "standard" else 0
        moves = rng.integers(-most, most + 1, (len(chosen), 2))
        return self._numbers(moved(images, torch.from_numpy(moves), torch.from_numpy(flips)))


def exact_pixels(pictures: Pictures, rows: np.ndarray, preprocess: Preprocess) -> Tensor | None:
    """Bytes [n, C, H, W] of pictures that already have the size of the input; None where they must be resized.

    Examples
    --------
    >>> from fewer.tasks.classify.pictures import ArrayPictures
    >>> digits, how = ArrayPictures(np.zeros((5, 8, 8), np.uint8)), Preprocess((3, 8, 8), crop=1.0)
    >>> tuple(exact_pixels(digits, np.arange(2), how).shape)
    (2, 3, 8, 8)
    """
    pixels = pixels_of(pictures, rows) if preprocess.crop == 1 else None
    if pixels is None:
        return None
    channels, height, width = preprocess.input_size
    sides_fit = pixels.shape[1:3] == (height, width) and max(height, width) <= 4 * min(height, width)
    channels_fit = channels == 3 or (channels == 1 and pixels.ndim == 3)
    if pixels.dtype != np.uint8 or not sides_fit or not channels_fit:
        return None
    planes = torch.from_numpy(pixels)
    if pixels.ndim == 3:
        return planes[:, None].expand(-1, channels, -1, -1)  # grey: the channels share their memory
    return planes.permute(0, 3, 1, 2).contiguous()


def normalised(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Bytes to numbers, in the steps of :func:`~fewer.data.decode.to_array`.

    Examples
    --------
    >>> normalised(torch.tensor([[[[255]]]], dtype=torch.uint8), Preprocess((1, 1, 1), mean=0.5, std=0.25)).item()
    2.0
    """
    mean = torch.tensor(preprocess.mean).reshape(-1, 1, 1)
    std = torch.tensor(preprocess.std).reshape(-1, 1, 1)
    return images.contiguous().float().div_(255).sub_(mean).div_(std)


def moved(images: Tensor, moves: Tensor, flips: Tensor) -> Tensor:
    """Images shifted down and right by some pixels, then perhaps mirrored; what comes in mirrors what is there.

    Parameters
    ----------
    images
        [n, C, H, W].
    moves
        [n, 2], how far the window lies below and to the right of the image.
    flips
        [n], true where left and right change places.

    Examples
    --------
    >>> moved(torch.tensor([[[[1, 2, 3]]]]), torch.tensor([[0, 1]]), torch.tensor([False])).flatten().tolist()
    [2, 3, 2]
    """
    most, (height, width) = int(moves.abs().max()), images.shape[2:]
    found = images.numpy()
    if most:
        sides = [(0, 0), (0, 0), *[(most, most)] * 2]
        windows = sliding_window_view(np.pad(found, sides, "reflect"), (height, width), (2, 3))
        found = windows[np.arange(len(found)), :, most + moves[:, 0].numpy(), most + moves[:, 1].numpy()]
    mirrored = flips.numpy()
    found = np.array(found)  # never the images that are held
    found[mirrored] = found[mirrored][..., ::-1]
    return torch.from_numpy(found)
