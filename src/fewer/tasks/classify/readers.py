"""From a path to a labelled set: folders by class, tables of labels, and the formats of well-known sets."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError, near_match
from fewer.core.reading import data_limit, parse_json, read_json, read_text, refusing
from fewer.data.images import SUFFIXES, left_out, list_images
from fewer.tasks.classify import formats
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.pictures import FilePictures
from fewer.tasks.folders import pictures_and_masks

__all__ = ["DEEP", "class_names", "format_of", "open_data"]

TRAIN, TEST = ("train", "training"), ("test", "val", "valid", "validation")
_FILE = ("file", "image", "path", "filename", "name")
_LABEL = ("label", "class", "target", "category", "y")
_PART = ("part", "split", "set")
PLACES = {
    "cifar": "https://www.cs.toronto.edu/~kriz/cifar.html (Python or binary version, to be unpacked)",
    "fashionmnist": "https://github.com/zalandoresearch/fashion-mnist",
    "tinyimagenet": "http://cs231n.stanford.edu/tiny-imagenet-200.zip (to be unpacked)",
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/ (four .gz files, which stay packed)",
}
"""Where well-known sets can be had, by a part of their name."""
DEEP = "folders by class, deeper"
"""The format in which the images of a class lie in folders of their own."""
_TABLES = ("labels.csv", "labels.json")
_INSIDE = ("images", "image", "imgs", "img")
"""Names of a folder that may stand between a class and its images, as in Tiny ImageNet."""
_NOTED = "val_annotations.txt"
"""Tiny ImageNet's list beside the images of a part: a file and its class in each line, then a box."""


def class_names(place: Path) -> tuple[str, ...]:
    """Names of a model's outputs in their order: one a line, a JSON list, or a JSON object from number to name.

    Raises
    ------
    FewerError
        When the file cannot be read as that.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "classes.json"
    >>> _ = file.write_text('{"1": "dog", "0": ["n021", "cat"]}')
    >>> class_names(file)
    ('cat', 'dog')
    """
    text = read_text(place, what="list of names")
    if place.suffix != ".json":
        names = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        try:
            found = parse_json(text, str(place))
            if isinstance(found, dict):
                found = [found[key] for key in sorted(found, key=int)]
            # ImageNet's list gives [code, name] for every class
            names = [str(one[-1] if isinstance(one, list) else one) for one in found]
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise FewerError(f"{place} must be a JSON list of class names ({error})") from None
    if len(set(names)) != len(names):
        raise FewerError(f"{place} names the class {next(n for n in names if names.count(n) > 1)!r} twice")
    return tuple(names)


def format_of(place: str | Path) -> str:
    """The format of a data set, by names alone; empty when it is none that is known.

    Examples
    --------
    >>> format_of("no-such-folder")
    ''
    """
    path = Path(place)
    return next((name for name, (knows, _) in FORMATS.items() if knows(path)), "")


def open_data(place: str | Path) -> ClassifyData:
    """Open a labelled set; images are decoded later.

    Parameters
    ----------
    place
        A folder with one folder of images per class (perhaps within ``train`` and ``test``, or with a folder ``images``
        in each and ``val_annotations.txt``, as Tiny ImageNet has them), a folder with
        ``labels.csv`` or ``labels.json``, such a table itself, CIFAR-10 or CIFAR-100 in their Python or binary form,
        MNIST's idx files (``.gz`` too), or ``.npz`` files with the keys ``images`` or ``jpeg`` and ``label``.
        A ``classes.txt`` or ``classes.json`` beside them names the model's outputs in their order.

    Raises
    ------
    FewerError
        When it is none of these, or is damaged.

    Examples
    --------
    >>> open_data("photos-by-class/").count()  # doctest: +SKIP
    {'cat': 120, 'dog': 98}
    """
    path = Path(place)
    if not path.exists():
        told = _where(path.name) or "give a folder with one folder of images per class"
        raise FewerError(f"the data set {path} does not exist; {told}")
    kind = format_of(path)
    if not kind:
        raise FewerError(f"{path} is no labelled set of images: {_instead(path)}")
    with refusing(str(path), f"it was taken for {kind}"):
        return FORMATS[kind][1](path)


def _where(name: str) -> str:
    """Where a well-known set of this name can be had."""
    plain = name.lower().replace("-", "").replace("_", "")
    return next((f"it can be had at {place}" for known, place in PLACES.items() if known in plain), "")


def _instead(path: Path) -> str:
    """What to give in place of something that is no set."""
    if path.is_file() and path.suffix.lower() in (".gz", ".tgz", ".tar", ".zip"):
        return "unpack it, and give the folder that is inside"
    if path.is_file() and format_of(path.parent):
        return f"give the folder that it is in, {path.parent}"
    inside = [folder for folder in _subfolders(path) if format_of(folder)]
    if inside:
        return f"give the folder inside, {inside[0]}"
    return (
        "give a folder with one folder of images per class, a table labels.csv with the columns file and label, or "
        "CIFAR, MNIST or npz files"
    )


def _beside(root: Path) -> tuple[str, ...]:
    for name in ("classes.txt", "classes.json"):
        if (root / name).is_file():
            return class_names(root / name)
    return ()


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _has_images(path: Path) -> bool:
    return any(p.suffix.lower() in SUFFIXES for p in path.iterdir() if p.is_file())


def _part_of(name: str) -> str:
    return "train" if name.lower() in TRAIN else "test" if name.lower() in TEST else ""


def _knows_parts(path: Path) -> bool:
    parts = [p for p in _subfolders(path) if _part_of(p.name)]
    return {"train", "test"} <= {_part_of(p.name) for p in parts} and any(_knows_folders(p) for p in parts)


def _knows_folders(path: Path) -> bool:
    return any(_holds_class(p) for p in _subfolders(path)) and pictures_and_masks(path) is None


def _knows_deep(path: Path) -> bool:
    """Folders of classes whose images all lie in folders of their own, such as one for each camera or each day."""
    inside = _subfolders(path)
    named = any(_part_of(p.name) or p.name.lower() in _INSIDE for p in inside)
    if len(inside) < 2 or named or pictures_and_masks(path) is not None:
        return False
    # one folder alone may be a set of its own beside something else
    return sum(_knows_folders(p) for p in inside) > 1


def _holds_class(path: Path) -> bool:
    """Whether images of one class are in a folder, or in the only folder inside it where its name says no more."""
    inside = _subfolders(path)
    between = len(inside) == 1 and inside[0].name.lower() in _INSIDE
    return _has_images(path) or (between and _has_images(inside[0]))


def _read_folders(path: Path) -> ClassifyData:
    return _of_folders(path, [(path, "")])


def _read_deep(path: Path) -> ClassifyData:
    return replace(_of_folders(path, [(path, "")]), kind="folders by class, whose images lie deeper")


def _read_parts(path: Path) -> ClassifyData:
    return _of_folders(path, [(p, _part_of(p.name)) for p in _subfolders(path) if _part_of(p.name)])


def _of_folders(root: Path, places: Sequence[tuple[Path, str]]) -> ClassifyData:
    files: list[Path] = []
    words: list[str] = []
    parts: list[str] = []
    empty: list[tuple[str, str]] = []
    for place, part in places:
        if (place / _NOTED).is_file():
            noted = _noted(place)
            files += [file for file, _ in noted]
            words += [word for _, word in noted]
            parts += [part] * len(noted)
            continue
        folders = _subfolders(place)
        if part == "test" and [folder.name.lower() in _INSIDE for folder in folders] == [True]:
            empty.append((str(folders[0]), "nothing says of what classes its images are"))
            continue
        for folder in folders:
            try:
                found = list_images(folder)
            except FewerError as error:
                empty.append((str(folder), str(error)))
                continue
            inside = folder.relative_to(root).as_posix()
            empty += [(f"{inside}/{name}", reason) for name, reason in left_out(folder)[0]]
            files += found
            words += [folder.name] * len(found)
            parts += [part] * len(found)
    names = [path.relative_to(root).as_posix() for path in files]
    return _labelled(root, files, names, words, parts, "folders by class", tuple(empty))


def _noted(place: Path) -> list[tuple[Path, str]]:
    """Images and their classes by the list beside them."""
    found = []
    for line in read_text(place / _NOTED, what="list of classes").splitlines():
        name, *rest = line.split("\t")
        if not line.strip():
            continue
        if not rest or not rest[0].strip():
            raise FewerError(f"{place / _NOTED} must hold a file and its class in each line; it holds {line[:40]!r}")
        file = next((p for p in (place / "images" / name, place / name) if p.is_file()), None)
        if file is not None:
            found.append((file, rest[0].strip()))
    if not found:
        raise FewerError(f"none of the images that {place / _NOTED} lists exists")
    return found


def _labelled(
    root: Path,
    files: Sequence[Path],
    names: Sequence[str],
    words: Sequence[str],
    parts: Sequence[str],
    kind: str,
    skipped: tuple[tuple[str, str], ...] = (),
) -> ClassifyData:
    numeric = all(word.isdecimal() for word in words)
    classes = tuple(sorted(set(words), key=int if numeric else str))
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index[word] for word in words], dtype=np.int64)
    pictures = FilePictures(tuple(files))
    return ClassifyData(root, pictures, tuple(names), labels, classes, tuple(parts), _beside(root), kind, skipped)


def _knows_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (".csv", ".json") and not path.name.startswith("classes.")


def _knows_table_folder(path: Path) -> bool:
    return any((path / name).is_file() for name in _TABLES)


def _read_table_folder(path: Path) -> ClassifyData:
    return _read_table(next(path / name for name in _TABLES if (path / name).is_file()))


def _read_table(path: Path) -> ClassifyData:
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    if not rows:
        raise FewerError(f"{path} has no row")
    file, label = _column(rows[0], _FILE, path, "file"), _column(rows[0], _LABEL, path, "label")
    part = next((key for key in rows[0] if key.lower() in _PART), None)
    root = path.parent
    if any(row.get(key) is None for row in rows for key in (file, label)):
        raise FewerError(f"{path}: every row needs {file} and {label}")
    names = [str(row[file]) for row in rows]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if twice:
        raise FewerError(f"{path} lists {min(twice)} more than once; give every image one row")
    files = [root / name for name in names]
    # a table from Windows
    files = [
        file if "\\" not in name or file.is_file() else root / name.replace("\\", "/")
        for file, name in zip(files, names, strict=True)
    ]
    missing = [(names[i], "does not exist") for i in range(len(files)) if not files[i].is_file()]
    if len(missing) == len(files):
        raise FewerError(f"none of the {len(files)} files that {path} lists exists; names are relative to {root}")
    there = [i for i, place in enumerate(files) if place.is_file() and str(rows[i][label]).strip()]
    missing += [(names[i], "has no label") for i in range(len(files)) if not str(rows[i][label]).strip()]
    if not there:
        raise FewerError(f"no image that {path} lists has a {label}")
    words = [str(rows[i][label]).strip() for i in there]
    parts = [_part_of(str(rows[i][part])) if part else "" for i in there]
    chosen = [files[i] for i in there]
    return _labelled(root, chosen, [names[i] for i in there], words, parts, f"table {path.name}", tuple(missing))


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as handle:
        sample = handle.read(4096)
        handle.seek(0)
        try:
            dialect: Any = csv.Sniffer().sniff(sample, ",;\t")
        except csv.Error:
            dialect = csv.excel
        return [dict(row) for row in csv.DictReader(handle, dialect=dialect)]


def _json_rows(path: Path) -> list[dict[str, Any]]:
    found = read_json(path, data_limit())
    if isinstance(found, dict):  # {"a.png": "cat"}
        found = [{"file": name, "label": label} for name, label in found.items()]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise FewerError(f"{path} must be a list of objects with file and label, or one object from file to label")
    if any(isinstance(value, (dict, list)) for row in found for value in row.values()):
        raise FewerError(f"{path}: files and labels must be text or numbers")
    return found


def _column(row: dict[str, Any], known: Sequence[str], path: Path, what: str) -> str:
    for key in row:
        if key is not None and key.strip().lower() in known:
            return key
    columns = [str(key) for key in row]
    raise FewerError(f"{path} has no column {what!r}{near_match(what, columns)}; call one of its columns {what}")


FORMATS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], ClassifyData]]] = {
    "npz": (formats.knows_npz, formats.read_npz),
    "CIFAR (Python)": (formats.knows_cifar_python, formats.read_cifar_python),
    "CIFAR (binary)": (formats.knows_cifar_binary, formats.read_cifar_binary),
    "MNIST idx": (formats.knows_idx, formats.read_idx),
    "table": (_knows_table, _read_table),
    "folder with a table": (_knows_table_folder, _read_table_folder),
    "folders by class and part": (_knows_parts, _read_parts),
    "folders by class": (_knows_folders, _read_folders),
    DEEP: (_knows_deep, _read_deep),
}
"""Formats in the order in which they are tried: how a path is recognised, and how it is read."""
