"""A segmentation network that has seen a pool without labels, as the function from its images to vectors."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error
from fewer.core.progress import Progress
from fewer.data.decode import read_image, to_array
from fewer.data.preprocess import Preprocess
from fewer.models.monai import import_monai
from fewer.tasks.segment.dataset import image_pool
from fewer.tasks.segment.settings import TrainSettings
from fewer.tasks.segment.warmup import WarmNetwork, warm_network

__all__ = ["SIDE", "WarmFeatures", "warm_features"]

SIDE = 128
"""Pixels along each side of the network's input."""
IMAGES = 1000
"""Images of the pool that the network is warmed up on, at most."""
STEPS = 500


class WarmFeatures(nn.Module):
    """From images on the scale 0 to 1, whole and resized, to vectors: mean and deviation of the bottleneck.

    Parameters
    ----------
    warm
        The network.

    Attributes
    ----------
    preprocess
        How an image file becomes the input.
    """

    def __init__(self, warm: WarmNetwork) -> None:
        super().__init__()
        self.network, self.preparation = warm.model, warm.preparation
        self._embedder = [warm.embedder()]  # in a list: it holds the same network, and is no part of the state
        self.preprocess = _preprocess(self.preparation.channels, self.preparation.patch[0])

    def forward(self, images: Tensor) -> Tensor:
        """Shape (batch, channels, side, side) to (batch, width)."""
        scaled = [self.preparation.normalised(image) for image in (images * 255).cpu().numpy()]
        return self._embedder[0](torch.from_numpy(np.stack(scaled)))


def _preprocess(channels: int, side: int) -> Preprocess:
    """The whole image, the ends of long ones excepted, on the scale 0 to 1."""
    return Preprocess((channels, side, side), (0.0,), (1.0,), "bilinear", 1.0)


def warm_features(
    files: Sequence[Path], folder: Path, *, seed: int = 0, side: int | None = None, progress: Progress | None = None
) -> WarmFeatures:
    """Warm a U-Net up on images by restoration, or take the one that is there.

    A training may start from the same network: ``fewer train DATA --init FOLDER``. The U-Net is the default one of
    ``fewer train``; it sees whole images at 128 x 128 pixels.

    Parameters
    ----------
    files
        Images; at most 1,000 of them, drawn with the seed, take part. Unreadable ones are passed over.
    folder
        Where the network is kept, with all that is needed to go on after an interruption.
    seed
        Of the images, the weights and the damage.
    side
        Pixels along each side of the input, a multiple of 8.
    progress
        Shows a stage.

    Raises
    ------
    FewerError
        When MONAI is missing, no image can be read, the side does not fit, or the disk is full.

    Examples
    --------
    >>> extract = warm_features(files, Path("queue/warm-up"))  # doctest: +SKIP
    >>> extract(torch.rand(2, 3, 128, 128)).shape  # doctest: +SKIP
    torch.Size([2, 256])
    """
    if (folder / "recipe.json").is_file():
        return WarmFeatures(WarmNetwork.load(folder))
    side = side or SIDE
    if side < 16 or side % 8:
        raise FewerError(f"the input of a warmed-up U-Net has sides of a multiple of 8, at least 16; got {side}")
    import_monai("monai.networks")  # or say so before a thousand images are read
    scratch = folder / "scratch"
    copies = _copies(files, scratch / "images", seed, side)
    settings = TrainSettings(patch=(side, side), warm_up="restoration", warm_up_steps=STEPS, seed=seed)
    warm = warm_network(image_pool(copies), settings, progress=progress, checkpoint=scratch / "checkpoint.safetensors")
    warm.save(folder)
    shutil.rmtree(scratch, ignore_errors=True)
    return WarmFeatures(warm)


def _copies(files: Sequence[Path], folder: Path, seed: int, side: int) -> list[Path]:
    """Reduced copies of some images, all grey or all in colour: what the network sees in every step."""
    drawn = np.random.default_rng([seed, 31]).permutation(len(files))[:IMAGES]
    pictures, reason = {}, "the pool is empty"
    for place in sorted(drawn.tolist()):
        try:
            pictures[place] = to_array(_upright(files[place]), _preprocess(3, side))
        except Exception as error:  # a broken file can make a decoder raise anything
            reason = f"{files[place].name}: {error}"
    if not pictures:
        raise FewerError(f"none of the {len(drawn)} images can be read; the last: {reason}")
    is_grey = all(np.array_equal(planes[0], planes[1]) for planes in pictures.values())
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, planes in pictures.items():
            pixels = np.rint(planes * 255).astype(np.uint8)
            picture = Image.fromarray(pixels[0] if is_grey else pixels.transpose(1, 2, 0))
            written.append(folder / f"{place:08d}.png")
            picture.save(written[-1])
    except OSError as error:
        raise explain_os_error(error, folder) from error
    return written


def _upright(path: Path) -> Image.Image:
    image = read_image(path)
    return image.convert("L") if image.mode == "F" else image
