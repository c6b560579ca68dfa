"""Well-known sets in their own distribution formats: CIFAR in Python and binary batches, MNIST idx, and npz files.

Pickles are read by an unpickler that knows arrays and plain containers only, so that no code in a file can run.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import check_size, data_limit, read_arrays, read_bytes, read_text, refusing
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.pictures import ArrayPictures, JoinedPictures, PackedPictures, Pictures
from fewer.tasks.pickles import unpickle_arrays

__all__ = [
    "knows_cifar_binary",
    "knows_cifar_python",
    "knows_idx",
    "knows_npz",
    "read_cifar_binary",
    "read_cifar_python",
    "read_idx",
    "read_npz",
]

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple("0123456789")
_PARTS = ("train", "test")
_LABELS = ("label", "labels", "y")


def _set(
    root: Path, parts: Sequence[tuple[str, Pictures, np.ndarray]], classes: Sequence[str], kind: str
) -> ClassifyData:
    labels = np.concatenate([found for _, _, found in parts]).astype(np.int64)
    outside = labels[(labels < 0) | (labels >= len(classes))]
    if len(outside):
        raise FewerError(f"{root} holds the label {outside[0]}, but names {len(classes)} classes")
    if any(len(pictures) != len(found) for _, pictures, found in parts):
        raise FewerError(f"{root} has {sum(len(p) for _, p, _ in parts)} images and {len(labels)} labels")
    names = [f"{part}/{i:06d}" for part, pictures, _ in parts for i in range(len(pictures))]
    flags = [part for part, pictures, _ in parts for _ in range(len(pictures))]
    pictures = parts[0][1] if len(parts) == 1 else JoinedPictures([pictures for _, pictures, _ in parts])
    # the order of the classes is the set's own, which models trained on it share
    return ClassifyData(root, pictures, tuple(names), labels, tuple(classes), tuple(flags), tuple(classes), kind)


def _npz_files(path: Path) -> list[tuple[str, Path]]:
    if path.suffix == ".npz" and path.is_file():
        return [(path.stem if path.stem in _PARTS else "", path)]
    return [(part, path / f"{part}.npz") for part in _PARTS if (path / f"{part}.npz").is_file()]


def knows_npz(path: Path) -> bool:
    """An ``.npz`` with labels, or a folder with ``train.npz`` or ``test.npz``."""
    files = _npz_files(path)
    try:
        with np.load(files[0][1], allow_pickle=False) as found:  # reads the names of the arrays alone
            return any(key in found for key in _LABELS)
    except IndexError:
        return False
    except Exception:  # damaged, in one of the many ways of an archive: told when it is read
        return True


def read_npz(path: Path) -> ClassifyData:
    """Arrays ``images`` uint8 [N, H, W] or [N, H, W, 3], or ``jpeg`` bytes with ``offset``; ``label``; ``classes``."""
    parts, classes = [], None
    for part, file in _npz_files(path):
        found = read_arrays(file, limit=None)
        label = next((key for key in _LABELS if key in found), None)
        if label is None:
            raise FewerError(f"{file} has no array 'label'; it has {', '.join(found)}")
        pictures = _packed(found, file) if "jpeg" in found else _array_pictures(found, file)
        labels = found[label]
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
            raise FewerError(f"{file}: {label} must be one whole number for each image, got {_told(labels)}")
        labels = labels.astype(np.int64)
        if len(labels) != len(pictures):
            raise FewerError(f"{file} has {len(pictures)} images and {len(labels)} labels")
        if "classes" in found:
            if found["classes"].ndim != 1:
                raise FewerError(f"{file}: classes must be a list of names, got {_told(found['classes'])}")
            classes = [str(name) for name in found["classes"]]
        parts.append((part, pictures, labels))
    root = path.parent if path.is_file() else path
    if classes is None:
        classes = [str(i) for i in range(int(max(labels.max() for _, _, labels in parts)) + 1)]
    return _set(path if path.is_file() else root, parts, classes, "npz")


def _told(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _array_pictures(found: dict[str, np.ndarray], file: Path) -> Pictures:
    key = next((key for key in ("images", "image", "x") if key in found), None)
    if key is None:
        raise FewerError(f"{file} has no array 'images'; it has {', '.join(found)}")
    pixels = found[key]
    flat = pixels[..., 0] if pixels.ndim == 4 and pixels.shape[-1] == 1 else pixels
    if (
        flat.dtype != np.uint8
        or not (flat.ndim == 3 or (flat.ndim == 4 and flat.shape[-1] == 3))
        or 0 in flat.shape[1:]
    ):
        raise FewerError(f"{file}: {key} must be uint8 [N, H, W] or [N, H, W, 3], got {_told(pixels)}")
    return ArrayPictures(flat)


def _packed(found: dict[str, np.ndarray], file: Path) -> Pictures:
    data, offset = found["jpeg"], found.get("offset")
    if offset is None or offset.ndim != 1 or offset.dtype.kind not in "iu" or data.dtype != np.uint8 or data.ndim != 1:
        raise FewerError(f"{file}: jpeg must be bytes, and offset say where each image begins")
    if (
        not len(offset)
        or (np.diff(offset.astype(np.int64)) < 0).any()
        or int(offset[0]) < 0
        or int(offset[-1]) > len(data)
    ):
        raise FewerError(f"{file}: offset must rise from 0 to the {len(data)} bytes of jpeg")
    return PackedPictures(data, offset)


def knows_cifar_python(path: Path) -> bool:
    """A folder with ``data_batch_1`` or, of CIFAR-100, ``train`` beside ``meta``."""
    return (path / "data_batch_1").is_file() or ((path / "meta").is_file() and (path / "test").is_file())


def _pixels(rows: Any, where: Path) -> np.ndarray:
    """[N, 3072], a plane per colour, to [N, 32, 32, 3]."""
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3072:
        raise FewerError(f"{where}: data must be bytes, 3072 for each image")
    return np.ascontiguousarray(np.asarray(rows, np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def read_cifar_python(path: Path) -> ClassifyData:
    """CIFAR-10 or CIFAR-100, "Python version" (Krizhevsky, 2009)."""
    if (path / "data_batch_1").is_file():
        files = [("train", p) for p in sorted(path.glob("data_batch_*")) if not p.suffix]
        files += [("test", path / "test_batch")] if (path / "test_batch").is_file() else []
        label, meta, names = "labels", path / "batches.meta", "label_names"
    else:
        files = [(part, path / part) for part in _PARTS if (path / part).is_file()]
        label, meta, names = "fine_labels", path / "meta", "fine_label_names"
    classes = list(CIFAR10)
    if meta.is_file():
        given = _dictionary(meta).get(names)
        if not isinstance(given, (list, tuple)) or not all(isinstance(name, (str, bytes)) for name in given):
            raise FewerError(f"{meta}: {names} must be a list of names")
        classes = [_text(name) for name in given]
    parts = []
    for part, file in files:
        found = _dictionary(file)
        parts.append((part, ArrayPictures(_pixels(found.get("data"), file)), _labels(found.get(label), label, file)))
    return _set(path, parts, classes, "CIFAR (Python)")


def _labels(found: Any, name: str, where: Path) -> np.ndarray:
    labels = np.asarray(found) if isinstance(found, (list, tuple, np.ndarray)) else np.zeros((), object)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise FewerError(f"{where}: {name} must be one whole number for each image")
    return labels.astype(np.int64)


def _dictionary(file: Path) -> dict[str, Any]:
    try:
        found = unpickle_arrays(read_bytes(file, data_limit()))
    except FewerError as error:
        raise FewerError(f"{file}: {error}") from None
    if not isinstance(found, dict):
        raise FewerError(f"{file} holds no dictionary, so it is no batch of CIFAR")
    return {_text(key): value for key, value in found.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def knows_cifar_binary(path: Path) -> bool:
    """A folder with ``data_batch_1.bin`` or, of CIFAR-100, ``train.bin``."""
    return any((path / name).is_file() for name in ("data_batch_1.bin", "train.bin", "test_batch.bin", "test.bin"))


def read_cifar_binary(path: Path) -> ClassifyData:
    """CIFAR-10 or CIFAR-100, "binary version": per image one label byte (two: coarse, fine) and 3072 pixels."""
    hundred = not any(path.glob("*_batch*.bin"))
    files = [("train", p) for p in sorted(path.glob("train.bin" if hundred else "data_batch_*.bin"))]
    files += [("test", p) for p in sorted(path.glob("test.bin" if hundred else "test_batch.bin"))]
    meta = path / ("fine_label_names.txt" if hundred else "batches.meta.txt")
    classes: Sequence[str] = [str(i) for i in range(100)] if hundred else CIFAR10
    if meta.is_file():
        classes = [line.strip() for line in read_text(meta, what="list of names").splitlines() if line.strip()]
    parts = []
    width = 3072 + (2 if hundred else 1)
    for part, file in files:
        rows = np.frombuffer(read_bytes(file, data_limit()), np.uint8)
        if rows.size % width:
            raise FewerError(f"{file} has {rows.size} bytes, which is no multiple of {width}; download it again")
        rows = rows.reshape(-1, width)
        parts.append((part, ArrayPictures(_pixels(rows[:, -3072:], file)), rows[:, -3073].astype(np.int64)))
    return _set(path, parts, classes, "CIFAR (binary)")


_IDX = {"train": "train", "test": "t10k"}


def _idx_file(path: Path, part: str, what: str) -> Path | None:
    for stem in (f"{_IDX[part]}-{what}", f"{_IDX[part]}-{what}".replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (path / (stem + suffix)).is_file():
                return path / (stem + suffix)
    return None


def knows_idx(path: Path) -> bool:
    """A folder with MNIST's image files."""
    return any(_idx_file(path, part, "images-idx3-ubyte") for part in _PARTS)


def read_idx(path: Path) -> ClassifyData:
    """MNIST and sets in its form (LeCun et al., 1998): idx files, packed with gzip or not."""
    parts = []
    for part in _PARTS:
        images, labels = _idx_file(path, part, "images-idx3-ubyte"), _idx_file(path, part, "labels-idx1-ubyte")
        if images is not None and labels is not None:
            pixels, found = _idx(images, 3), _idx(labels, 1)
            if len(pixels) != len(found):
                raise FewerError(f"{images} has {len(pixels)} images, {labels.name} has {len(found)} labels")
            parts.append((part, ArrayPictures(pixels), found))
    if not parts:
        raise FewerError(f"{path} has images in idx files, but no labels beside them")
    return _set(path, parts, DIGITS, "MNIST idx")


def _idx(file: Path, axes: int) -> np.ndarray:
    head, limit = 4 + 4 * axes, data_limit()
    data = read_bytes(file, limit)
    if file.suffix == ".gz":
        with refusing(str(file), "download it again"), gzip.open(io.BytesIO(data)) as unpacked:
            data = unpacked.read(limit + 1)
        check_size(len(data), limit, f"{file}, unpacked,")
    # two zero bytes, the type (8: bytes), the number of axes, then the sizes as big-endian integers
    if len(data) < head or data[:4] != bytes((0, 0, 8, axes)):
        raise FewerError(f"{file} is no idx file of bytes with {axes} axes")
    shape = struct.unpack(f">{axes}I", data[4:head])
    if len(data) - head != math.prod(shape):
        raise FewerError(f"{file} should hold {shape} bytes and holds {len(data) - head}; download it again")
    if 0 in shape[1:]:
        raise FewerError(f"{file} holds images without a pixel")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
