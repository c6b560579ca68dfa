"""Predictions of a model for images of a pool, from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import files_below
from fewer.core.reading import read_array, read_arrays, read_bytes
from fewer.selection.labels import Names
from fewer.selection.pool import entropy
from fewer.selection.uncertainty import bald_score

__all__ = ["Predictions", "read_predictions"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says about a pool of N images; rows without a prediction are NaN.

    Attributes
    ----------
    probabilities
        [N, C] or [S, N, C] of a classifier; None for maps.
    uncertainty, disagreement
        [N] mean entropy and, where there are several maps per image, mean BALD of a segmentation; None for a
        classifier.
    foreground
        [N] mean probability of not being class 0.
    """

    probabilities: np.ndarray | None
    uncertainty: np.ndarray | None
    disagreement: np.ndarray | None
    foreground: np.ndarray


def read_predictions(source: str | Path, names: Sequence[str]) -> Predictions:
    """Read class probabilities of a pool.

    Parameters
    ----------
    source
        An ``.npz`` file with ``names`` and ``probabilities`` ([n, C], or [S, n, C] of an ensemble); or a folder with
        one ``.npy`` map per image, named like it: [C, H, W], or [S, C, H, W]. Maps are read one after the other.
    names
        All images of the pool.

    Raises
    ------
    FewerError
        When the file cannot be read, has other contents, or names no image of the pool.
    """
    source = Path(source)
    if source.is_dir():
        return _maps(source, names)
    try:
        data = read_arrays(source, {"names", "probabilities"}, 2**33)
        given, values = [str(name) for name in data["names"]], np.asarray(data["probabilities"], np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise FewerError(
            f"cannot read predictions from {source} ({error}); give an .npz file with names and probabilities, or a "
            "folder of .npy maps"
        ) from None
    if values.ndim not in (2, 3) or values.shape[-2] != len(given):
        raise FewerError(f"{source} has {len(given)} names, but probabilities of shape {values.shape}")
    rows = _rows(source, given, names, by_stem=False)
    full = np.full((*values.shape[:-2], len(names), values.shape[-1]), np.nan, np.float32)
    places = np.array([i for i, row in enumerate(rows) if row is not None], int)
    full[..., [rows[i] for i in places], :] = values[..., places, :]
    mean = full.mean(0) if full.ndim == 3 else full
    return Predictions(full, None, None, 1 - mean[:, 0])


def _rows(source: Path, given: Sequence[str], names: Sequence[str], *, by_stem: bool) -> list[int | None]:
    row_of = {name: row for row, name in enumerate(names)}
    find = Names(names, by_stem=by_stem).find
    rows = [row_of[name] if (name := find(path)) is not None else None for path in given]
    seen: dict[int, str] = {}
    for path, row in zip(given, rows, strict=True):
        if row is not None and row in seen:
            raise FewerError(
                f"{source} has two predictions for {names[row]}: {seen[row]} and {path}; leave one of them"
            )
        if row is not None:
            seen[row] = path
    if all(row is None for row in rows):
        raise FewerError(f"none of the {len(given)} predictions in {source} is for an image of the pool")
    return rows


def _maps(folder: Path, names: Sequence[str]) -> Predictions:
    files = [path for path in files_below(folder) if path.suffix == ".npy"]
    if not files:
        raise FewerError(f"the folder {folder} holds no .npy map of probabilities")
    rows = _rows(folder, [path.relative_to(folder).as_posix() for path in files], names, by_stem=True)
    unsure, differ, front = (np.full(len(names), np.nan) for _ in range(3))
    for path, row in zip(files, rows, strict=True):
        if row is None:
            continue
        try:
            values = read_array(read_bytes(path, 2**31), str(path))
        except (OSError, ValueError) as error:
            raise FewerError(f"cannot read the map {path}: {error}") from None
        if values.ndim not in (3, 4):
            raise FewerError(f"the map {path} has the shape {values.shape}; it should be [C, H, W] or [S, C, H, W]")
        # one image at a time, and only its mean is kept: maps of a whole pool do not fit in memory
        pixels = values.reshape(*values.shape[:-2], -1).swapaxes(-1, -2)
        unsure[row] = entropy(pixels).mean()
        if values.ndim == 4:
            differ[row] = bald_score(pixels).mean()
        front[row] = 1 - float(values.mean((-1, -2)).reshape(-1, values.shape[-3]).mean(0)[0])
    return Predictions(None, unsure, None if np.isnan(differ).all() else differ, front)
