"""Read a case as numbers: image and mask of one shape, checked, with class numbers from 0 without gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import Case, SegmentData
from fewer.tasks.segment.files import Picture, read_picture
from fewer.tasks.segment.geometry import onto

__all__ = ["Sample", "class_indices", "read_case", "read_image"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One case in memory.

    Attributes
    ----------
    name
        Of the case.
    image
        float32, shape ``(channels, *space)``.
    mask
        uint8 class indices of shape ``(*space)``, 0 is background; None if the case has no mask.
    picture
        The first image file as it was read: it knows spacing and place.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray | None
    picture: Picture

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres per voxel along each axis."""
        return self.picture.spacing


def read_image(case: Case) -> tuple[np.ndarray, Picture]:
    """The image of a case as float32 ``(channels, *space)``, and its first file.

    Raises
    ------
    FewerError
        When a file is damaged, files of one case differ in shape, or a value is not finite.
    """
    pictures = [read_picture(path) for path in case.images]
    first = pictures[0]
    for at, path in enumerate(case.images[1:], 1):
        pictures[at] = onto(pictures[at], first, str(path), case.images[0].name)
    image = np.concatenate([picture.array for picture in pictures]).astype(np.float32)
    for path, picture in zip(case.images, pictures, strict=True):
        if not (good := np.isfinite(picture.array)).all():
            raise FewerError(
                f"the image {path} holds NaN or infinity in {1 - good.mean():.2g} of its voxels; save it with a number "
                "there, such as 0 outside of the body, or leave it out"
            )
    return image, first


def class_indices(mask: np.ndarray, classes: Mapping[str, int], where: str) -> np.ndarray:
    """Turn the values of a mask file into indices 0, 1, 2, ... in the order of the classes.

    Raises
    ------
    FewerError
        When the mask holds a value that no class has.

    Examples
    --------
    >>> class_indices(np.array([[0, 255]]), {"background": 0, "lesion": 255}, "a.png")
    array([[0, 1]], dtype=uint8)
    >>> class_indices(np.array([[0, 1, 2]]), {"background": 0, "organ": 2, "lesion": 1}, "a.png")
    array([[0, 2, 1]], dtype=uint8)
    """
    values = np.unique(mask)
    known = np.array(list(classes.values()))
    strange = np.setdiff1d(values, known)
    if len(strange):
        raise FewerError(
            f"{where} holds the value {strange[0]:g}, which is no class of the data set "
            f"({', '.join(f'{name} {value}' for name, value in classes.items())}); see: fewer doctor"
        )
    order = np.argsort(known)
    return order[np.searchsorted(known, mask.astype(np.int64), sorter=order)].astype(np.uint8)


def read_case(data: SegmentData, case: Case, channels: int | None = None) -> Sample:
    """Read image and mask of a case.

    Parameters
    ----------
    channels
        Channels that the image must have.

    Raises
    ------
    FewerError
        When a file is damaged, or image and mask do not fit each other.
    """
    image, picture = read_image(case)
    if channels is not None and len(image) != channels:
        raise FewerError(f"the image of {case.name} has {len(image)} channels, the others have {channels}")
    if case.mask is None:
        return Sample(case.name, image, None, picture)
    try:
        found = onto(read_picture(case.mask, mask=True), picture, f"the mask {case.mask}", "its image")
    except FewerError as error:
        raise FewerError(f"{error}; see: fewer doctor {data.root}") from None
    if found.numbers is None:
        raise FewerError(f"the mask {case.mask} has {len(found.array)} channels; save it with one of class numbers")
    return Sample(case.name, image, class_indices(found.numbers, data.classes, str(case.mask)), picture)
