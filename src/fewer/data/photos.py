"""Real photos that installed packages bring along, for the demo and the benchmarks: no network, nothing copied."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fewer.core.errors import FewerError
from fewer.data.assets import package_folder

# the right half of the stereo pair is left out: it would sit on the other side of a split from its twin.
# So are drawings, masks, test patterns and thumbnails.
_SKIMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
_SKLEARN = ("china.jpg", "flower.jpg")
_FOOLBOX = re.compile(r"^imagenet_\d+_(\d+)\.jpg$")
INSTALL = "pip install scikit-image scikit-learn && pip install --no-deps foolbox==3.3.4"


@dataclass(frozen=True)
class Photo:
    """One photo.

    Parameters
    ----------
    path : Path
        Inside the installed package.
    package : str
        ``skimage``, ``sklearn`` or ``foolbox``.
    label : int, optional
        ImageNet class, 0 to 999; foolbox's photos have one.
    """

    path: Path
    package: str
    label: int | None = None


def real_photos() -> list[Photo]:
    """All real photos that the installed packages hold, in a fixed order: at most 40.

    scikit-image (18 files inside the wheel, BSD-3 and as its README says), scikit-learn (2, CC-BY) and foolbox
    (20 ImageNet photos with labels, MIT). A package that is absent is left out.

    Raises
    ------
    FewerError
        When none of the packages is installed; the message has the command that brings them.
    """
    photos: list[Photo] = []
    for package, folder, names in (("skimage", "data", _SKIMAGE), ("sklearn", "datasets/images", _SKLEARN)):
        root = package_folder(package)
        if root is not None:
            photos += [Photo(root / folder / name, package) for name in names if (root / folder / name).is_file()]
    photos += labelled_photos(required=False)
    if not photos:
        raise FewerError(f"no package with photos is installed; run: {INSTALL}")
    return photos


def labelled_photos(required: bool = True) -> list[Photo]:
    """foolbox's 20 ImageNet photos with their classes.

    Parameters
    ----------
    required : bool
        Raise when there are none; otherwise return an empty list.

    Raises
    ------
    FewerError
        When foolbox is not installed or holds no such photo.
    """
    root = package_folder("foolbox")
    photos = []
    for path in sorted((root / "data").glob("imagenet_*.jpg")) if root is not None else []:
        if found := _FOOLBOX.match(path.name):
            photos.append(Photo(path, "foolbox", int(found[1])))
    if required and not photos:
        raise FewerError("the labelled photos need foolbox; run: pip install --no-deps foolbox==3.3.4")
    return photos
