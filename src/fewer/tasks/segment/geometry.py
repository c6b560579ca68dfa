"""Where a volume lies in space: what its NIfTI header says is checked, and one grid is brought onto another."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.tasks.segment.picture import Picture

__all__ = ["GeometryError", "onto", "place_of", "resample_onto"]

TOLERANCE = 0.05
"""Two places are the same where they differ by no more than this share of a voxel."""
_SPACING = 0.01
"""Relative difference of two spacings that is no longer rounding."""
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres per unit of measure, by the code in a NIfTI header; a header that does not say means mm."""


class GeometryError(FewerError):
    """A file lies in no place, in two, or elsewhere than what belongs to it."""


def place_of(header: Any, shape: tuple[int, ...], where: str) -> tuple[tuple[float, ...], np.ndarray | None, str]:
    """Spacing in mm, affine in mm and a doubt in words, from the header of a NIfTI file.

    Parameters
    ----------
    header
        Of nibabel.
    shape
        Voxels along the three axes.
    where
        The file, for messages.

    Returns
    -------
    spacing
        mm along each of the three axes.
    affine
        4 x 4, or None where the header names no place (both codes are 0).
    doubt
        What a person should look at; empty where all is clear.

    Raises
    ------
    GeometryError
        When what the header says contradicts itself, or is no rectangular grid.
    """
    unit = _MM.get(int(header["xyzt_units"]) & 7, 1.0)
    zooms = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64)) * unit
    sform, sform_code = header.get_sform(coded=True)
    qform, qform_code = _qform(header, where)
    forms = [
        (name, m) for name, m, c in (("sform", sform, sform_code), ("qform", qform, qform_code)) if c and m is not None
    ]
    if not forms:
        used = zooms[: max(1, sum(n > 1 for n in shape))]
        if not (np.isfinite(used).all() and (used > 0).all()):
            raise GeometryError(f"{where} gives the spacing {_told(zooms)} mm; it must be positive")
        return tuple(np.where(np.isfinite(zooms) & (zooms > 0), zooms, 1.0).tolist()), None, ""
    scale = np.diag([unit, unit, unit, 1.0])
    forms = [(name, scale @ np.asarray(matrix, dtype=np.float64)) for name, matrix in forms]
    for name, matrix in forms:
        _check_grid(name, matrix, zooms, shape, where)
    affine, doubt = forms[0][1], ""
    if len(forms) == 2:
        doubt = _compare_forms(affine, forms[1][1], shape, where)
    return tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist()), affine, doubt


def _qform(header: Any, where: str) -> tuple[np.ndarray | None, int]:
    code = int(header["qform_code"])
    try:
        return (header.get_qform(), code) if code else (None, 0)
    except Exception as error:  # nibabel raises several kinds for a quaternion that is none
        raise GeometryError(f"{where} has a qform that is no rotation ({' '.join(str(error).split())[:80]})") from None


_SMALLEST, _LARGEST = 1e-7, 1e4
"""Millimetres of a voxel: an ångström, and ten metres."""


def _check_grid(name: str, matrix: np.ndarray, zooms: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    columns = matrix[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.isfinite(matrix).all() or (lengths <= 0).any():
        raise GeometryError(f"the {name} of {where} is not finite or has an axis without length; write its header anew")
    if not (lengths.min() >= _SMALLEST and lengths.max() <= _LARGEST):
        raise GeometryError(
            f"the {name} of {where} says that a voxel is {lengths.min():.3g} to {lengths.max():.3g} mm long, which no "
            "scanner or microscope makes; write its header anew"
        )
    unit = columns / lengths
    cosines = np.abs(unit.T @ unit - np.eye(3)).max()
    if cosines > 1e-2 or abs(np.linalg.det(unit)) < 0.5:
        raise GeometryError(
            f"the axes of {where} are not at right angles (its {name} is sheared); resample it onto a rectangular grid"
        )
    long = np.array([n > 1 for n in (*shape, 1, 1, 1)[:3]])
    wrong = long & (np.abs(lengths - zooms) > _SPACING * np.maximum(lengths, zooms))
    if wrong.any() or not np.isfinite(zooms[long]).all():
        raise GeometryError(
            f"{where} contradicts itself: its pixdim says {_told(zooms)} mm per voxel, its {name} {_told(lengths)} mm; "
            "write its header anew with the right one"
        )


def _compare_forms(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, ...], where: str) -> str:
    gap = _gap(sform, qform, shape)
    if gap <= TOLERANCE * np.linalg.norm(sform[:3, :3], axis=0).min():
        return ""
    if _codes(sform) != _codes(qform):
        raise GeometryError(
            f"{where} contradicts itself: its sform says that its axes run to {_codes(sform)}, its qform to "
            f"{_codes(qform)}; write its header anew with the right one"
        )
    return f"its sform and its qform differ by up to {gap:.3g} mm; the sform is taken"


def _codes(affine: np.ndarray) -> str:
    letters = (("L", "R"), ("P", "A"), ("I", "S"))
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return "".join(letters[int(np.abs(c).argmax())][int(c[np.abs(c).argmax()] > 0)] for c in columns.T)


def _gap(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest distance in mm between the places that two affines give the corners of a volume."""
    corners = np.array([[*c, 1.0] for c in itertools.product(*((0, max(n - 1, 1)) for n in _three(shape)))])
    return float(np.linalg.norm((corners @ (a - b).T)[:, :3], axis=1).max())


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return tuple((*shape, 1, 1, 1)[:3])  # type: ignore[return-value]


def _told(values: np.ndarray) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values)


def onto(picture: Picture, other: Picture, what: str, of: str) -> Picture:
    """The same picture on the grid of another one, where that needs no interpolation.

    The voxels are turned (axes exchanged or reversed), exactly, if both are the same voxels in space.

    Parameters
    ----------
    picture
        For example a mask.
    other
        For example its image.
    what, of
        What both are, for messages.

    Raises
    ------
    GeometryError
        When it lies elsewhere in space.

    Examples
    --------
    >>> image = Picture(np.zeros((1, 2, 1, 1)), (1.0,) * 3, np.eye(4), True)
    >>> flip = np.diag([-1.0, 1, 1, 1])
    >>> flip[0, 3] = 1
    >>> mask = Picture(np.array([5, 7]).reshape(1, 2, 1, 1), (1.0,) * 3, flip, True)
    >>> onto(mask, image, "the mask", "its image").array.ravel()
    array([7, 5])
    """
    if picture.affine is None or other.affine is None:
        return _without_place(picture, other, what, of)
    smallest = min(other.spacing)
    if picture.space == other.space:
        gap = _gap(picture.affine, other.affine, other.space)
        if gap <= TOLERANCE * smallest:
            return picture
    turned = _turned(picture, other)
    if turned is not None:
        return turned
    if picture.space != other.space:
        raise FewerError(f"{what} has the shape {picture.space}, {of} has {other.space}")
    gap = _gap(picture.affine, other.affine, other.space)
    raise GeometryError(f"{what} lies elsewhere in space than {of}, by up to {gap:.3g} mm, though the shapes are equal")


def _without_place(picture: Picture, other: Picture, what: str, of: str) -> Picture:
    if picture.space != other.space:
        raise FewerError(f"{what} has the shape {picture.space}, {of} has {other.space}")
    if picture.spaced and other.spaced and len(picture.spacing) == len(other.spacing):
        a, b = np.array(picture.spacing), np.array(other.spacing)
        if (np.abs(a - b) > _SPACING * np.maximum(a, b)).any():
            raise GeometryError(f"{what} has {_told(a)} mm per voxel, {of} has {_told(b)} mm")
    return picture


def _turned(picture: Picture, other: Picture) -> Picture | None:
    """The voxels of a picture in the order of another one's axes, if that is all that differs."""
    assert picture.affine is not None and other.affine is not None
    move = np.linalg.inv(picture.affine) @ other.affine  # from the other's indices to the picture's
    turn = np.rint(move[:3, :3]).astype(int)
    if (np.abs(turn).sum(0) != 1).any() or (np.abs(turn).sum(1) != 1).any():
        return None
    source, wanted = _three(picture.space), _three(other.space)
    axes = [int(np.abs(turn[:, axis]).argmax()) for axis in range(3)]
    if tuple(source[axis] for axis in axes) != wanted:
        return None
    array = picture.array.reshape(len(picture.array), *source).transpose(0, *(1 + axis for axis in axes))
    flips = [axis for axis in range(3) if turn[axes[axis], axis] < 0]
    start = np.zeros(3)
    for axis in flips:
        start[axes[axis]] = source[axes[axis]] - 1
    exact = np.eye(4)
    exact[:3, :3], exact[:3, 3] = turn, start
    if _gap(picture.affine @ exact, other.affine, other.space) > TOLERANCE * min(other.spacing):
        return None
    array = np.flip(array, tuple(1 + axis for axis in flips)).reshape(len(array), *other.space)
    return replace(picture, array=np.ascontiguousarray(array), spacing=other.spacing, affine=other.affine)


def resample_onto(mask: Picture, image: Picture, what: str) -> tuple[Picture, str]:
    """A mask of class numbers on the grid of its image, by its nearest voxel in space, and what was done in words.

    Parameters
    ----------
    mask, image
        Both with a place.
    what
        The mask, for messages.

    Raises
    ------
    GeometryError
        When a twentieth or more of what is annotated would be lost, since it lies outside of the image.
    """
    try:
        fitted = onto(mask, image, what, "its image")
        same = fitted is mask
        return fitted, "" if same else "its voxels are turned into the order of the image's axes, exactly"
    except FewerError:
        if mask.affine is None or image.affine is None:
            raise
    assert mask.affine is not None and image.affine is not None
    move = np.linalg.inv(mask.affine) @ image.affine
    source, wanted = _three(mask.space), _three(image.space)
    array = mask.array.reshape(len(mask.array), *source)
    result = np.zeros((len(array), *wanted), array.dtype)
    rows, columns = np.indices(wanted[1:])
    for plane in range(wanted[0]):  # one plane at a time: the indices of a whole volume do not fit in memory
        points = np.stack([np.full_like(rows, plane), rows, columns, np.ones_like(rows)]).reshape(4, -1)
        at = np.rint((move @ points)[:3]).astype(int)
        inside = ((at >= 0) & (at < np.array(source)[:, None])).all(0)
        flat = result[:, plane].reshape(len(array), -1)
        flat[:, inside] = array[:, at[0, inside], at[1, inside], at[2, inside]]
        result[:, plane] = flat.reshape(len(array), *wanted[1:])
    # what is annotated has a volume in mm3; a grid that misses some of it would lose it without a word
    before = float((array[0] != 0).sum()) * math.prod(mask.spacing)
    after = float((result[0] != 0).sum()) * math.prod(image.spacing)
    if before and after < 0.95 * before:
        raise GeometryError(
            f"{1 - after / before:.0%} of {what} lies outside of its image, or is lost between its voxels"
        )
    moved = replace(mask, array=result.reshape(len(array), *image.space), spacing=image.spacing, affine=image.affine)
    return moved, "it is resampled onto the grid of the image, each voxel by the nearest in space"
