"""What is fixed before training and needed for every image afterwards: normalisation, spacing, patch, classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor
from typing_extensions import Self

from fewer.core.errors import FewerError
from fewer.core.reading import check_size, data_limit
from fewer.data.preprocess import Preprocess
from fewer.tasks.segment.dataset import Case, SegmentData
from fewer.tasks.segment.files import NIFTI, Picture, read_picture, suffix_of
from fewer.tasks.segment.reading import Sample, read_case, read_image
from fewer.tasks.segment.settings import TrainSettings
from fewer.tasks.segment.turning import AXIS, axes_of, most_common_axes, order_of, turn

__all__ = ["Preparation", "fit_preparation", "fit_shape", "resample"]

LOOKED_AT = 64
"""Cases that normalisation and spacing are fitted to."""
DIFFERENT = 0.05
"""Relative difference of spacings above which they are brought to one."""


class _Facts(BaseModel):
    """What :meth:`Preparation.to_dict` gives, as it is read back from somebody's recipe."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    classes: list[str] = Field(min_length=1, max_length=65_536)
    values: list[int]
    channels: int = Field(ge=1, le=65_536)
    normalise: Literal["zscore", "inside", "global", "ct", "none"]
    mean: list[float]
    std: list[float]
    low: list[float]
    high: list[float]
    spacing: list[Annotated[float, Field(gt=0)]] | None
    patch: list[Annotated[int, Field(ge=1, le=2**20)]] = Field(min_length=2, max_length=3)
    # recipes of older versions have none of these
    axes: str | None = Field(default=None, pattern="^[LRPAIS]+$")
    mirror: int | None = Field(default=0, ge=0, le=2)
    spaced: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.values) != len(self.classes):
            raise ValueError(f"{len(self.values)} values for {len(self.classes)} classes")
        if self.spacing is not None and len(self.spacing) != len(self.patch):
            raise ValueError(f"a spacing of {len(self.spacing)} axes for a patch of {len(self.patch)}")
        letters = self.axes or ""
        if letters and not len(self.patch) == len(letters) == len({AXIS[letter] for letter in letters}):
            raise ValueError(f"axes {letters} for a patch of {len(self.patch)} axes")
        fixed = {"global": (self.mean, self.std), "ct": (self.mean, self.std, self.low, self.high)}
        if any(len(numbers) != self.channels for numbers in fixed.get(self.normalise, ())):
            raise ValueError(f"{self.normalise} needs a number for each of {self.channels} channels")
        return self


@dataclass(frozen=True)
class Preparation:
    """How an image file becomes the input of a trained network, and its output a mask.

    Attributes
    ----------
    classes
        Names; the first is the background.
    values
        What each class is called in mask files, in the same order.
    channels
        Number of channels of an image.
    normalise
        ``zscore``, ``inside``, ``global``, ``ct`` or ``none``.
    mean, std, low, high
        One number per channel, for ``global`` and ``ct``.
    spacing
        mm per voxel that images are resampled to, or None.
    patch
        Voxels along each axis of what the network sees at once.
    axes
        Towards which side of the body each axis of the network runs, such as ``RAS``; scans that lie otherwise are
        turned. None where the files of the training did not say.
    mirror
        The axis from left to right, along which a scan may be mirrored; None where none is, as in sagittal slices.
    spaced
        Whether scans of the training said how large their voxels are; one that does not cannot be resampled then.
    """

    classes: tuple[str, ...]
    values: tuple[int, ...]
    channels: int
    normalise: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    spacing: tuple[float, ...] | None
    patch: tuple[int, ...]
    axes: str | None = None
    mirror: int | None = 0
    spaced: bool = False

    @property
    def dims(self) -> int:
        """2 or 3."""
        return len(self.patch)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`of` reads them back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Preparation:
        """Read :meth:`to_dict` back.

        Raises
        ------
        FewerError
            When keys are missing or unknown, or values are of another kind or do not fit each other.
        """
        try:
            _Facts.model_validate({k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            told = f"{name}: {first['msg']}" if name else first["msg"].removeprefix("Value error, ")
            raise FewerError(f"the recipe of the run does not describe a segmentation: {told}") from None
        tidy: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**tidy)

    def normalised(self, image: np.ndarray) -> np.ndarray:
        """An image ``(channels, *space)`` on the scale that the network was trained on, float32."""
        shape = (-1, *(1,) * (image.ndim - 1))
        image = image.astype(np.float32)
        if self.normalise == "none":
            return image
        if self.normalise == "zscore":
            axes = tuple(range(1, image.ndim))
            mean, std = image.mean(axes, keepdims=True), image.std(axes, keepdims=True)
            return (image - mean) / np.maximum(std, 1e-6)
        if self.normalise == "inside":
            return np.stack([_inside(channel) for channel in image])
        if self.normalise == "ct":
            image = np.clip(image, np.reshape(self.low, shape), np.reshape(self.high, shape))
        scaled = (image - np.reshape(self.mean, shape)) / np.maximum(np.reshape(self.std, shape), 1e-6)
        return scaled.astype(np.float32)

    def preprocess(self) -> Preprocess | None:
        """The nearest that verbs can do which know photos only, such as ``bench``: None for volumes.

        Normalisation of each image by itself is replaced by fixed numbers there; the task itself never uses this.
        """
        if self.dims != 2 or self.channels not in (1, 3):
            return None
        size = (self.channels, self.patch[0], self.patch[1])
        if self.normalise != "global" or max(self.mean) <= 1:
            return Preprocess(size, (0.5,), (0.25,), "bilinear")
        return Preprocess(size, tuple(m / 255 for m in self.mean), tuple(s / 255 for s in self.std), "bilinear")

    def lying(self, picture: Picture) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Voxels and spacing along each axis of the network, before resampling."""
        order = order_of(axes_of(picture), self.axes)
        if order is None:
            return picture.space, picture.spacing
        return tuple(picture.space[own] for own in order), tuple(picture.spacing[own] for own in order)

    def shape_of(self, picture: Picture) -> tuple[int, ...]:
        """Voxels along each axis of the network, after resampling."""
        space, spacing = self.lying(picture)
        if self.spacing is None:
            return space
        steps = zip(space, spacing, self.spacing, strict=True)
        return tuple(max(1, round(n * own / wanted)) for n, own, wanted in steps)

    def image(self, array: np.ndarray, picture: Picture, name: str) -> Tensor:
        """The network's input, float32 ``(channels, *space)``, of an image as it was read.

        Raises
        ------
        FewerError
            When the image has other axes or channels than those that were trained on, or does not say its spacing
            where images are resampled to one.
        """
        if array.ndim - 1 != self.dims:
            raise FewerError(f"{name} is {array.ndim - 1}-dimensional, the network {self.dims}-dimensional")
        if len(array) != self.channels:
            raise FewerError(f"{name} has {len(array)} channels, the network was trained on {self.channels}")
        if self.spacing is not None and self.spaced and not picture.spaced:
            wanted = " x ".join(f"{step:g}" for step in self.spacing)
            raise FewerError(
                f"{name} gives no spacing, and the network works at {wanted} mm; add a NAME.json with it, such as "
                f'{{"spacing": {list(self.spacing)}}}'
            )
        shape = self.shape_of(picture)
        told = f"{name}, at the spacing of the network ({' x '.join(map(str, shape))} voxels),"
        check_size(4 * len(array) * math.prod(shape), data_limit(), told)
        return resample(turn(torch.from_numpy(self.normalised(array)), axes_of(picture), self.axes), shape)

    def back(self, array: Tensor, picture: Picture) -> Tensor:
        """What lies on the network's voxels, ``(channels, *space)``, on those of the file again."""
        space, _ = self.lying(picture)
        return turn(resample(array, space), self.axes or "", axes_of(picture))

    def sample(self, sample: Sample) -> tuple[Tensor, Tensor | None]:
        """Input and target: float32 ``(channels, *space)``, uint8 ``(*space)``."""
        image = self.image(sample.image, sample.picture, sample.name)
        if sample.mask is None:
            return image, None
        mask = turn(torch.from_numpy(sample.mask)[None].float(), axes_of(sample.picture), self.axes)
        return image, resample(mask, tuple(image.shape[1:]), nearest=True)[0].to(torch.uint8)


def _inside(channel: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 over the voxels above the smallest value, where that is at least 5 % of the image."""
    air = channel == channel.min()
    values = channel[~air] if 0.05 <= air.mean() < 1 else channel
    return (channel - values.mean()) / np.maximum(values.std(), 1e-6)


def resample(array: Tensor, shape: tuple[int, ...], *, nearest: bool = False) -> Tensor:
    """Resample ``(channels, *space)`` to another shape; linear, with blur where it shrinks a 2-D image, or nearest.

    Examples
    --------
    >>> resample(torch.ones(1, 4, 4), (8, 2)).shape
    torch.Size([1, 8, 2])
    """
    if tuple(array.shape[1:]) == shape:
        return array
    if nearest:
        return F.interpolate(array[None], shape, mode="nearest-exact")[0]
    if len(shape) == 2:
        return F.interpolate(array[None], shape, mode="bilinear", antialias=True)[0]
    return F.interpolate(array[None], shape, mode="trilinear")[0]


def fit_shape(space: Sequence[int], voxels: int, multiple: int) -> tuple[int, ...]:
    """The largest patch that covers an image or stays within so many voxels; every side is a multiple.

    Examples
    --------
    >>> fit_shape((512, 300), 65536, 8), fit_shape((100, 100, 20), 65536, 8)
    ((256, 256), (48, 56, 24))
    """
    sides = [multiple * -(-n // multiple) for n in space]
    while prod(sides) > voxels and max(sides) > multiple:
        largest = sides.index(max(sides))
        sides[largest] -= multiple
    return tuple(sides)


def fit_preparation(
    data: SegmentData, cases: Sequence[Case], settings: TrainSettings, *, masks: bool = True
) -> Preparation:
    """Fit everything to the training cases.

    Parameters
    ----------
    data
        Gives the classes.
    cases
        Training cases.
    settings
        What the user fixed.
    masks
        False for cases without a mask (a warm-up): the data set's classes are not asked for.

    Raises
    ------
    FewerError
        When there is no case, or cases differ in axes or channels.
    """
    if not cases:
        raise FewerError(f"{data.root} has no annotated case; put masks beside the images, see: fewer doctor")
    chosen = [cases[i] for i in np.linspace(0, len(cases) - 1, min(LOOKED_AT, len(cases))).astype(int)]
    pictures = [read_picture(case.images[0]) for case in chosen]
    first = read_image(chosen[0])[0]
    channels, dims = len(first), first.ndim - 1
    for case, picture in zip(chosen, pictures, strict=True):
        if len(picture.space) != dims:
            raise FewerError(f"{case.name} is {len(picture.space)}-dimensional, {chosen[0].name} {dims}-dimensional")
    for name in ("patch", "spacing"):
        if isinstance(wanted := getattr(settings, name), tuple) and len(wanted) != dims:
            raise FewerError(f"{name} has {len(wanted)} numbers, the images have {dims} axes")
    kind = settings.normalise
    if kind == "auto":
        colour = channels == 3 and pictures[0].array.dtype == np.uint8
        kind = "ct" if "CT" in data.channels else "global" if colour else "zscore"
    if kind == "ct" and not masks:
        kind = "global"
    mean, std, low, high = _statistics(data, chosen, channels, kind)
    axes = most_common_axes(pictures)
    classes = data.classes if masks else {"background": 0}
    empty = Preparation(
        tuple(classes), tuple(classes.values()), channels, kind, mean, std, low, high, None, (1,) * dims, axes
    )
    sideways = _sideways(axes, dims, chosen[0].images[0])
    spaced = any(picture.spaced for picture in pictures)
    empty = replace(empty, mirror=sideways, spacing=_spacing(empty, pictures, settings), spaced=spaced)
    if empty.spacing is not None and spaced:
        _check_spaced(chosen, pictures)
    shapes = [empty.shape_of(picture) for picture in pictures]
    space = [int(n) for n in np.median(np.array(shapes), axis=0)]
    multiple = 2 ** (settings.levels - 1)
    patch = settings.patch or fit_shape(space, settings.patch_voxels, multiple)
    if any(side % multiple for side in patch):
        raise FewerError(f"with {settings.levels} levels each side of the patch must be a multiple of {multiple}")
    return replace(empty, patch=tuple(patch))


def _statistics(data: SegmentData, cases: Sequence[Case], channels: int, kind: str) -> tuple[tuple[float, ...], ...]:
    if kind not in ("global", "ct"):
        return ((), (), (), ())
    rng, parts = np.random.default_rng(0), []
    for case in cases:
        sample = read_case(data, case, channels)
        values = sample.image.reshape(channels, -1)
        if kind == "ct" and sample.mask is not None and sample.mask.any():
            values = values[:, sample.mask.ravel() > 0]
        parts.append(values[:, rng.integers(0, values.shape[1], 20_000)])
    values = np.concatenate(parts, axis=1)
    low, high = np.percentile(values, (0.5, 99.5), axis=1)
    if kind == "ct":
        values = np.clip(values, low[:, None], high[:, None])
    found = (values.mean(1), values.std(1), low, high)
    return tuple(tuple(float(number) for number in numbers) for numbers in found)


def _sideways(axes: str | None, dims: int, file: Path) -> int | None:
    """The axis from left to right: of the body, or else the last one of a picture, the first one of a NIfTI file."""
    if axes is not None:
        return next((axis for axis, letter in enumerate(axes) if letter in "LR"), None)
    return 0 if suffix_of(file) in NIFTI else dims - 1


def _check_spaced(cases: Sequence[Case], pictures: Sequence[Picture]) -> None:
    for case, picture in zip(cases, pictures, strict=True):
        if not picture.spaced:
            raise FewerError(
                f"{case.images[0]} gives no spacing, others do; add a NAME.json with it, or give --spacing native"
            )


def _spacing(
    preparation: Preparation, pictures: Sequence[Picture], settings: TrainSettings
) -> tuple[float, ...] | None:
    if isinstance(settings.spacing, tuple):
        return settings.spacing
    spacings = np.array([preparation.lying(picture)[1] for picture in pictures])
    if settings.spacing == "native" or not any(picture.spaced for picture in pictures):
        return None
    median = np.median(spacings, axis=0)
    if (np.abs(spacings / median - 1) <= DIFFERENT).all():
        return None
    return tuple(float(step) for step in median)
