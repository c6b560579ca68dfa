"""Masks of persons as picture files, in whatever way they were saved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import refusing
from fewer.data.decode import open_image

__all__ = ["PICTURES", "as_mask", "in_order", "pictures_in", "read_mask", "read_masks"]

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_LOSSY = (".jpg", ".jpeg")
_PLAIN = 8
"""Colours of a picture that somebody has coloured by hand or by class."""
_OVERSHOOT = 0.3
"""By which cubic resampling may leave the range of 0 to 1."""
_GREY = 0.5
"""Share of a picture that is neither dark nor bright, from which on it is no mask, however soft its edges are."""


def in_order(name: str) -> list[tuple[int, str]]:
    """Key that sorts names by the numbers in them: frame 9 comes before frame 10.

    Examples
    --------
    >>> sorted(["f10.png", "f9.png"], key=in_order)
    ['f9.png', 'f10.png']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, frame by frame; hidden files are none."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
    return sorted(found, key=lambda p: in_order(p.name))


def as_mask(values: np.ndarray, most: float | None = None) -> np.ndarray:
    """Numbers of any kind to a mask uint8 of 0 to 255: those from 0 to 1 are stretched, larger ones are shrunk.

    Resampling leaves floats a little below 0 and above 1; they are cut off. Numbers that are 0 and one other, such as
    15 for a person, are a mask as well.

    Parameters
    ----------
    values
        Of one frame, or of a whole sequence.
    most
        The greatest number of the sequence that a frame belongs to: what is a person in one sequence is the shadow of
        a brighter one in another. None where they are the whole sequence.

    Raises
    ------
    FewerError
        When they are no numbers, not finite, or negative.

    Examples
    --------
    >>> as_mask(np.array([[0, 15]], np.uint8)).tolist(), as_mask(np.array([[0, 15, 90]], np.uint8)).tolist()
    ([[0, 255]], [[0, 15, 90]])
    >>> as_mask(np.array([[0, 1]])).tolist(), as_mask(np.array([[0.0, 65535.0]])).tolist()
    ([[0, 255]], [[0, 255]])
    >>> as_mask(np.array([[0, 1]]), most=2).tolist()
    [[0, 1]]
    """
    if values.dtype.kind not in "buif":
        raise FewerError(f"holds {values.dtype}, not numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise FewerError("holds numbers that are not finite")
    own = float(values.max()) if values.size else 0.0
    top = own if most is None else max(own, most)
    if values.dtype == np.uint8 and top != 1:
        return np.where(values > 0, 255, 0).astype(np.uint8) if own == top and _is_number(values) else values
    least = float(values.min()) if values.size else 0.0
    floats = values.dtype.kind == "f"
    if least < (-_OVERSHOOT * max(top, 1.0) if floats else 0):
        raise FewerError(f"holds numbers below zero (from {least:g} to {top:g})")
    scale = 255.0 if top <= (1 + _OVERSHOOT if floats else 1) else 255.0 / top if top > 255 else 1.0
    found = (values.astype(np.float64) * scale).clip(0, 255).astype(np.uint8)
    return np.where(found > 0, 255, 0).astype(np.uint8) if own == top and _is_number(found) else found


def _is_number(values: np.ndarray) -> bool:
    """Whether bytes are 0 and one dark number."""
    top = int(values.max()) if values.size else 0
    return 1 < top < 128 and bool(((values == 0) | (values == top)).all())


def read_masks(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Masks of one sequence, each as of :func:`read_mask`.

    A number that stands for the person in one sequence is a shadow in another, where the person is brighter. So what
    is dark, or has more than eight bits, is held against the greatest number of all frames, which are looked through
    when the first such frame is met.
    """
    most: float | None = None
    for path in paths:
        seen = _numbers(path)
        if most is None and (seen.values.dtype != np.uint8 or 0 < seen.most < 128):
            most = max(_numbers(other).most for other in paths)
        yield _mask_of(seen, path, most)


def read_mask(path: Path) -> np.ndarray:
    """A mask uint8 (height, width) of a picture file: the person is bright.

    Of colours with transparency that differs, what cannot be seen is background. Of palettes with
    colours, and of a few plain colours, everything that is not black is the person. Of many colours, the brightest of
    red, green and blue counts. The grey that JPEG leaves at edges is cut at one half.

    Raises
    ------
    FewerError
        When it is no picture, or a photo.
    """
    return _mask_of(_numbers(path), path)


@dataclass(frozen=True, eq=False)
class _Numbers:
    """What a picture holds: one number a pixel, and its transparency where that differs."""

    values: np.ndarray
    alpha: np.ndarray | None = None

    @property
    def most(self) -> float:
        return float(self.values.max()) if self.values.size else 0.0


def _numbers(path: Path) -> _Numbers:
    with refusing(str(path), "save the mask again"), open_image(path) as image:
        image.load()
        if image.mode == "P" and "transparency" not in image.info:
            return _Numbers(_of_palette(np.asarray(image), np.asarray(image.convert("RGB"))))
        if image.mode in ("I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
            return _Numbers(np.asarray(image))
        if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
            values = np.asarray(image.convert("RGBA"))
            alpha = values[..., 3]
            return _Numbers(values[..., :3].max(2), None if alpha.min() == alpha.max() else alpha)
        if image.mode in ("L", "1"):
            return _Numbers(np.asarray(image.convert("L")))
        return _Numbers(_of_colours(np.asarray(image.convert("RGB"))))


def _mask_of(seen: _Numbers, path: Path, most: float | None = None) -> np.ndarray:
    lossy = path.suffix.lower() in _LOSSY
    try:
        values = seen.values if lossy else as_mask(seen.values, most)  # what compression leaves of black is no person
    except FewerError as error:
        raise FewerError(f"{path} {error}; save the mask again") from None
    if seen.alpha is not None:
        visible = values[seen.alpha > 0]
        # one colour on nothing: the shape is in the transparency alone
        return seen.alpha if visible.min() == visible.max() else np.where(seen.alpha > 0, values, 0).astype(np.uint8)
    grey = values[(values > 31) & (values < 224)]
    if grey.size > _GREY * values.size and len(np.unique(grey)) > 32:
        raise FewerError(f"{path} is a photo, not a mask: give masks of the person, or a video of a still camera")
    return np.where(values > 127, 255, 0).astype(np.uint8) if lossy else values


def _of_colours(colours: np.ndarray) -> np.ndarray:
    """The brightest channel; of a few plain colours, 255 for all that are not black."""
    brightest = colours.max(2)
    if (colours == brightest[..., None]).all():  # grey
        return brightest
    number = colours.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    return np.where(brightest > 0, 255, 0).astype(np.uint8) if len(np.unique(number)) <= _PLAIN else brightest


def _of_palette(entries: np.ndarray, colours: np.ndarray) -> np.ndarray:
    if (colours == colours[..., :1]).all():
        return colours[..., 0] if colours.any() else entries
    return np.where(colours.any(2), 255, 0).astype(np.uint8)
