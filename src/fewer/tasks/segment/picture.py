"""The content of one image or mask file, with its place in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Picture"]


@dataclass(frozen=True, eq=False)
class Picture:
    """The content of one file.

    Attributes
    ----------
    array
        Shape ``(channels, *space)``; space is (height, width), or the three axes of a volume in the order of the file.
    spacing
        Millimetres from one voxel to the next along each axis of space; 1 where the file does not say.
    affine
        4 x 4 matrix from voxel indices to millimetres, of NIfTI files only.
    spaced
        Whether the spacing was written in the file.
    doubt
        What is unclear about its place, in words for a person.
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None = None
    spaced: bool = False
    doubt: str = ""

    @property
    def space(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.array.shape[1:]

    @property
    def numbers(self) -> np.ndarray | None:
        """The class numbers of a mask, shape ``space``; None where its channels differ, and so are no mask.

        A mask that was saved in grey or in colours has the same number in each; transparency says nothing about it.

        Examples
        --------
        >>> Picture(np.array([[[3]], [[3]], [[3]], [[255]]]), (1.0, 1.0)).numbers
        array([[3]])
        >>> Picture(np.array([[[3]], [[4]]]), (1.0, 1.0), np.eye(4)).numbers is None
        True
        """
        channels = self.array
        if self.affine is None and len(self.space) == 2 and len(channels) in (2, 4):  # the last one is transparency
            channels = channels[:-1]
        return channels[0] if all((plane == channels[0]).all() for plane in channels[1:]) else None
