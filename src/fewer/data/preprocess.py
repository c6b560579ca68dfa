"""How an image file becomes a model's input. No torch here, so that specs stay cheap to describe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from fewer.core.errors import FewerError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIDE = 32_768
"""Pixels of the longest side that an input may have."""
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocess:
    """Resize the shorter side, crop, scale to 0..1, subtract the mean, divide by the deviation.

    Parameters
    ----------
    input_size : (channels, height, width)
        Shape of one input; 1 or 3 channels for image files.
    mean, std : sequence of float
        One number per channel, on the 0..1 scale; a single number is repeated. By default ImageNet's for three
        channels and 0.5 otherwise.
    interpolation : str
        ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``.
    crop : float
        Centre crop: side of the crop divided by the resized shorter side, 0 < crop <= 1.

    Raises
    ------
    FewerError
        For sizes, deviations or names that cannot be meant.

    Examples
    --------
    >>> Preprocess(input_size=(1, 28, 28), mean=0.5, std=0.5).mean
    (0.5,)
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    interpolation: str = "bicubic"
    crop: float = 0.875

    def __post_init__(self) -> None:
        try:
            size = tuple(int(n) for n in self.input_size)
        except (TypeError, ValueError, OverflowError):
            size = ()
        if len(size) != 3 or min(size) < 1:
            raise FewerError(
                f"input_size must be (channels, height, width), for example (3, 224, 224); got {self.input_size!r}"
            )
        if max(size) > SIDE:
            raise FewerError(f"input_size {size} is larger than any input; the longest side is {SIDE}")
        object.__setattr__(self, "input_size", size)
        for name, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not len(value):
                value = usual if size[0] == 3 else 0.5
            object.__setattr__(self, name, _per_channel(name, value, size[0]))
        if not all(math.isfinite(value) and abs(value) < 1e6 for value in (*self.mean, *self.std)):
            raise FewerError(f"mean and std are numbers on the 0 to 1 scale; got {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise FewerError(f"std must be positive; got {self.std}")
        if self.interpolation not in INTERPOLATIONS:
            near = get_close_matches(str(self.interpolation), INTERPOLATIONS, 1) or ["bicubic"]
            raise FewerError(
                f"unknown interpolation {self.interpolation!r}; did you mean {near[0]!r}? "
                f"Known: {', '.join(INTERPOLATIONS)}"
            )
        if not 0 < float(self.crop) <= 1:
            raise FewerError(f"crop must lie in (0, 1]; got {self.crop!r}")

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: str = "preprocessing") -> Preprocess:
        """Build from a mapping; an unknown key is an error with the nearest valid name."""
        known = [field.name for field in fields(cls)]
        for key in settings:
            if key not in known:
                near = get_close_matches(str(key), known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise FewerError(f"{where}: unknown key {key!r}; {hint}")
        try:
            return cls(**settings)
        except (TypeError, ValueError, OverflowError) as error:
            raise FewerError(f"{where}: {' '.join(str(error).split())}") from None

    def words(self) -> str:
        """What happens to an image file, in one sentence.

        Examples
        --------
        >>> Preprocess(input_size=(1, 28, 28), crop=1.0).words()
        'Files become 1 x 28 x 28 (bicubic), minus 0.5, over 0.5.'
        """
        size, crop = " x ".join(map(str, self.input_size)), f", centre crop {self.crop:g}" if self.crop < 1 else ""
        mean, std = (", ".join(f"{number:.3g}" for number in numbers) for numbers in (self.mean, self.std))
        return f"Files become {size} ({self.interpolation}{crop}), minus {mean}, over {std}."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`of` reads them back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def _per_channel(name: str, value: Any, channels: int) -> tuple[float, ...]:
    values = tuple(float(v) for v in value) if isinstance(value, Sequence) else (float(value),)
    if len(values) == 1:
        values *= channels
    if len(values) != channels:
        raise FewerError(f"{name} has {len(values)} numbers but the input has {channels} channels")
    return values
