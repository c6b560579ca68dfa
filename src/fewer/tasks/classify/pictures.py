"""Where the pixels of a data set are: files, arrays, or compressed images in one array."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from fewer.data.decode import read_image

__all__ = ["ArrayPictures", "FilePictures", "JoinedPictures", "PackedPictures", "Pictures", "pixels_of"]


class Pictures(Protocol):
    """Images by number, decoded when they are asked for, in mode ``L`` or ``RGB``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Image.Image: ...

    def raw(self, index: int) -> bytes:
        """Bytes that are the same where the image is."""
        ...


@dataclass(frozen=True)
class FilePictures:
    """Image files."""

    files: Sequence[Path]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image.Image:
        return read_image(self.files[index])

    def raw(self, index: int) -> bytes:
        """The file."""
        return Path(self.files[index]).read_bytes()


@dataclass(frozen=True, eq=False)
class ArrayPictures:
    """Pixels uint8, [N, H, W] or [N, H, W, 3].

    Examples
    --------
    >>> ArrayPictures(np.zeros((1, 2, 3), np.uint8))[0].size
    (3, 2)
    """

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.pixels[index]))

    def raw(self, index: int) -> bytes:
        """The pixels."""
        return self.pixels[index].tobytes()


@dataclass(frozen=True, eq=False)
class PackedPictures:
    """Files of JPEG or PNG behind each other in one array of bytes; ``offset`` [N + 1] says where each begins."""

    data: np.ndarray
    offset: np.ndarray

    def __len__(self) -> int:
        return len(self.offset) - 1

    def __getitem__(self, index: int) -> Image.Image:
        return read_image(io.BytesIO(self.raw(index)))

    def raw(self, index: int) -> bytes:
        """The file."""
        return self.data[self.offset[index] : self.offset[index + 1]].tobytes()


class JoinedPictures:
    """Several sources of pictures behind each other."""

    def __init__(self, parts: Sequence[Pictures]) -> None:
        self.parts, self.ends = parts, np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def _place(self, index: int) -> tuple[Pictures, int]:
        number = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[number], index - (int(self.ends[number - 1]) if number else 0)

    def __getitem__(self, index: int) -> Image.Image:
        part, at = self._place(index)
        return part[at]

    def raw(self, index: int) -> bytes:
        """As of the part."""
        part, at = self._place(index)
        return part.raw(at)


def pixels_of(pictures: Pictures, rows: np.ndarray) -> np.ndarray | None:
    """Pixels of some pictures in one array; None where they are not kept in arrays of one shape.

    Examples
    --------
    >>> dark, light = (ArrayPictures(np.full((2, 1, 1), level, np.uint8)) for level in (0, 9))
    >>> pixels_of(JoinedPictures([dark, light]), np.array([3, 0])).ravel().tolist()
    [9, 0]
    """
    parts = pictures.parts if isinstance(pictures, JoinedPictures) else [pictures]
    arrays = [part.pixels for part in parts if isinstance(part, ArrayPictures)]
    if len(arrays) < len(parts) or len({(array.shape[1:], array.dtype) for array in arrays}) != 1:
        return None
    found = np.empty((len(rows), *arrays[0].shape[1:]), arrays[0].dtype)
    start = 0
    for array in arrays:
        mine = (rows >= start) & (rows < start + len(array))
        found[mine] = array[rows[mine] - start]
        start += len(array)
    return found
