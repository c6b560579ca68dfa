"""A data set for segmentation: which image belongs to which mask, what the classes are called, and how it is split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError, near_match
from fewer.core.files import as_path, explain_os_error, files_below
from fewer.core.reading import read_json
from fewer.core.subjects import Subjects, subjects_of
from fewer.data.images import printable, why_no_name
from fewer.tasks.folders import pictures_and_masks
from fewer.tasks.segment.files import LOSSLESS, SUFFIXES, picture_stem, read_picture, suffix_of

__all__ = [
    "MOST_VALUES",
    "Case",
    "SegmentData",
    "Split",
    "channels_together",
    "find_pictures",
    "image_pool",
    "mask_values",
    "masks_apart",
    "nnunet_pool",
    "open_data",
]

ENDINGS = ("_segmentation", "_mask", "_label", "_labels", "_seg", "_gt", "-mask", "-label")
"""What names of masks may have behind the name of their image."""
CLASSES = "classes.json"
MOST_VALUES = 64
"""More values than this in one mask are grey levels, not classes."""


@dataclass(frozen=True)
class Case:
    """One image, of one or several files, and its mask.

    Attributes
    ----------
    name
        The same for image and mask, and for what is predicted.
    images
        Files whose channels are put one behind the other.
    mask
        None for an image without annotation.
    """

    name: str
    images: tuple[Path, ...]
    mask: Path | None = None


@dataclass(frozen=True)
class Split:
    """Names of the cases that train, and of those that judge."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class SegmentData:
    """A data set; only its list is held, pixels are read when they are needed.

    Attributes
    ----------
    root
        Folder.
    layout
        ``folder`` or ``nnunet``.
    cases
        Annotated cases, by name.
    unlabelled
        Cases without a mask: images that have none, and those of ``imagesTs``.
    declared
        Class name -> value in the mask files, as ``dataset.json`` or ``classes.json`` gives it; None if neither does.
    channels
        Names of the channels, if they were given.
    splits
        Of ``splits_final.json``; empty when there is none.
    orphans
        Masks without an image.
    count
        What ``numTraining`` claims.
    unused
        Files in the folders of images and masks that are not read: of another ending, or in a folder inside.
    """

    root: Path
    layout: str
    cases: tuple[Case, ...]
    unlabelled: tuple[Case, ...] = ()
    declared: dict[str, int] | None = None
    channels: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()
    orphans: tuple[Path, ...] = ()
    count: int | None = None
    suffix: str = field(default="")
    unused: tuple[Path, ...] = ()

    @cached_property
    def classes(self) -> dict[str, int]:
        """Class name -> value in the mask files, background first; masks are read if nothing declares it.

        Examples
        --------
        >>> SegmentData(Path("."), "folder", (), declared={"background": 0, "lesion": 255}).classes
        {'background': 0, 'lesion': 255}
        """
        if self.declared is not None:
            return self.declared
        values = {0}
        for case in self.cases:
            if case.mask is not None:
                values |= set(mask_values(case.mask))
        found = sorted(values - {0})
        names = ["foreground"] if len(found) == 1 else [f"class {value}" for value in found]
        return {"background": 0} | dict(zip(names, found, strict=True))

    def case(self, name: str) -> Case:
        """The case of a name.

        Raises
        ------
        FewerError
            With the nearest name.
        """
        for case in (*self.cases, *self.unlabelled):
            if case.name == name:
                return case
        known = [case.name for case in self.cases]
        raise FewerError(f"{self.root} has no case {name!r}{near_match(name, known)}")

    def subjects(self, rule: str = "auto") -> Subjects:
        """The subject of each annotated case, from the names; volumes are no slices of one."""
        first = next((case.images[0] for case in self.cases if case.images), None)
        try:
            slices = first is None or read_picture(first).array.ndim < 4
        except FewerError:  # whoever reads it will tell
            slices = True
        return subjects_of([case.name for case in self.cases], rule, slices)

    def split(self, fold: int = 0, folds: int = 5, seed: int = 0, subject: str = "auto") -> Split:
        """Training and validation cases of a fold: of ``splits_final.json``, or else a seeded k-fold over subjects.

        Raises
        ------
        FewerError
            When the fold does not exist.

        Examples
        --------
        >>> cases = tuple(Case(name, ()) for name in "abcde")
        >>> SegmentData(Path("."), "folder", cases).split(0, 5).val
        ('c',)
        """
        if self.splits:
            if fold >= len(self.splits):
                raise FewerError(f"{self.root} has {len(self.splits)} folds, numbered from 0; there is no fold {fold}")
            chosen = self.splits[fold]
            known = {case.name for case in self.cases}
            for name in (*chosen.train, *chosen.val):
                if name not in known:
                    raise FewerError(f"splits_final.json names the case {name!r}{near_match(name, known)}")
            return chosen
        names = [case.name for case in self.cases]
        if len(names) < 2:
            return Split(tuple(names), ())
        groups = self.subjects(subject).groups(names)
        folds = min(folds, len(groups))
        if not 0 <= fold < folds:
            alone = len(groups) == len(names)
            what, way = ("cases", "") if alone else ("subjects", " (--subject none: folds of cases)")
            raise FewerError(f"{len(groups)} {what} make {folds} folds, numbered from 0; there is no fold {fold}{way}")
        order = np.random.default_rng(seed).permutation(len(groups))
        val = sorted(_even_folds([groups[i] for i in order], folds)[fold])
        return Split(tuple(name for name in names if name not in set(val)), tuple(val))


def _even_folds(groups: Sequence[Sequence[str]], folds: int) -> list[list[str]]:
    """Groups dealt out so that folds have about as many cases, the smallest fold first; groups of one go round."""
    dealt: list[list[str]] = [[] for _ in range(folds)]
    for group in sorted(groups, key=len, reverse=True):
        min(dealt, key=len).extend(group)
    return sorted(dealt, key=len) if any(len(group) > 1 for group in groups) else dealt


def mask_values(path: Path) -> list[int]:
    """Class numbers in a mask file, in ascending order.

    Raises
    ------
    FewerError
        When the mask has several different channels, fractions, or so many values that it is a picture.
    """
    picture = read_picture(path, mask=True)
    if picture.numbers is None:
        raise FewerError(
            f"the mask {path} has {len(picture.array)} channels; save it with one channel of class numbers"
        )
    values = np.unique(picture.numbers)
    if not np.isfinite(values).all() or (values != np.round(values)).any() or values.min() < 0:
        raise FewerError(f"the mask {path} holds values that are no class numbers; they must be whole and from 0 up")
    if len(values) > MOST_VALUES:
        raise FewerError(
            f"the mask {path} holds {len(values)} different values; it looks like a picture or was saved with loss"
        )
    return [int(value) for value in values]


def open_data(folder: str | Path) -> SegmentData:
    """List a data set.

    Two layouts are known. A folder with ``images/`` and ``masks/``, files of the same name in each (a mask may be
    called ``NAME_mask`` or alike), and perhaps a ``classes.json`` such as ``{"lesion": 255}``; and a raw folder of
    nnU-Net version 2 with ``dataset.json``, ``imagesTr``, ``labelsTr`` and perhaps ``splits_final.json`` and
    ``imagesTs``.

    Raises
    ------
    FewerError
        When the folder is missing or has neither layout.

    Examples
    --------
    >>> data = open_data("lesions/")  # doctest: +SKIP
    >>> len(data.cases), data.classes  # doctest: +SKIP
    (80, {'background': 0, 'lesion': 255})
    """
    root = as_path(folder)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise FewerError(f"the data set {root} {what}; give a folder with images/ and masks/, or one of nnU-Net")
    return _open_nnunet(root) if (root / "dataset.json").is_file() else _open_folder(root)


def find_pictures(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Image files directly in a folder, in the order of their names; hidden ones are left out."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file() and entry.name[0] != ".")
    except OSError as error:
        raise explain_os_error(error, folder, "read") from error
    for name in names:
        if (reason := why_no_name(name)) and suffix_of(Path(name)) in suffixes:
            raise FewerError(f"{printable(folder / name)} cannot be used: {reason}")
    return [folder / name for name in names if suffix_of(Path(name)) in suffixes]


def _open_folder(root: Path) -> SegmentData:
    both = pictures_and_masks(root)
    if both is None:
        there = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir() if entry.name[0] != ".")
        seen = ", ".join(there[:5]) + (", ..." if len(there) > 5 else "") if there else "nothing"
        raise FewerError(
            f"{root} is no data set for segmentation: it needs images/ and masks/, or dataset.json, imagesTr/ and "
            f"labelsTr/; it holds {seen}"
        )
    images, masks = both
    by_name = _by_name(find_pictures(images))
    left = _by_name(find_pictures(masks, LOSSLESS))
    lossy = [path for path in find_pictures(masks) if path not in left.values()]
    if lossy:
        raise FewerError(f"the mask {lossy[0]} is of a kind that loses detail; save masks as PNG, TIFF or NIfTI")
    cases, unlabelled = [], []
    for name, image in by_name.items():
        mask = left.pop(name, None)
        for ending in ENDINGS:
            mask = mask or left.pop(name + ending, None)
        (cases if mask is not None else unlabelled).append(Case(name, (image,), mask))
    declared = None
    if (root / CLASSES).is_file():
        declared = _classes(_json(root / CLASSES), root / CLASSES)
    splits = _splits(root)
    return SegmentData(
        root,
        "folder",
        tuple(cases),
        tuple(unlabelled),
        declared,
        (),
        splits,
        tuple(left.values()),
        suffix=suffix_of(cases[0].images[0]) if cases else "",
        unused=(*_unused(images, SUFFIXES), *_unused(masks, LOSSLESS)),
    )


def _unused(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of a folder, and what lies deeper, that :func:`find_pictures` passes over; not those of spacings."""
    if not folder.is_dir():
        return []
    read = set(find_pictures(folder, suffixes))
    sidecars = {folder / f"{picture_stem(path)}.json" for path in read}
    sidecars |= {folder / f"{picture_stem(path)[:-5]}.json" for path in read}
    return sorted(
        path
        for path in files_below(folder)
        if path not in read and path not in sidecars and not any(p[0] == "." for p in path.relative_to(folder).parts)
    )


def _by_name(files: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        name = picture_stem(path)
        if name in found:
            raise FewerError(f"{path} and {found[name].name} have the same name; two cases cannot share one")
        found[name] = path
    return found


def _channel_names(told: Any, file: Path) -> tuple[str, ...]:
    """Names of the channels, in the order of their numbers, of which none is missing."""
    numbers = sorted(map(str, told), key=lambda key: (len(key), key)) if isinstance(told, dict) else []
    if not numbers or numbers != [str(index) for index in range(len(numbers))]:
        raise FewerError(f'{file} must name every channel by its number from 0, for example {{"0": "CT", "1": "PET"}}')
    return tuple(str(told[key]) for key in numbers)


def _open_nnunet(root: Path) -> SegmentData:
    file = root / "dataset.json"
    facts = _json(file)
    for key in ("channel_names", "labels", "file_ending"):
        if key not in facts:
            hint = "; it is of nnU-Net version 1" if "modality" in facts else ""
            raise FewerError(f"{file} lacks the key {key!r}{hint}, see: fewer doctor {root}")
    suffix = str(facts["file_ending"]).lower()
    channels = _channel_names(facts["channel_names"], file)
    declared = _classes(facts["labels"], file)
    for name in ("imagesTr", "labelsTr"):
        if not (root / name).is_dir():
            raise FewerError(f"{root} has a dataset.json but no folder {name}/")
    left = {picture_stem(path): path for path in find_pictures(root / "labelsTr", (suffix,))}
    cases, unlabelled = [], []
    for name, images in _channel_files(root / "imagesTr", suffix).items():
        mask = left.pop(name, None)
        (cases if mask is not None else unlabelled).append(Case(name, images, mask))
    if (root / "imagesTs").is_dir():
        unlabelled += [Case(name, files) for name, files in _channel_files(root / "imagesTs", suffix).items()]
    splits, count = _splits(root), facts.get("numTraining")
    return SegmentData(
        root,
        "nnunet",
        tuple(cases),
        tuple(unlabelled),
        declared,
        channels,
        splits,
        tuple(left.values()),
        count if isinstance(count, int) else None,
        suffix,
        tuple(path for name in ("imagesTr", "labelsTr", "imagesTs") for path in _unused(root / name, (suffix,))),
    )


def nnunet_pool(root: Path) -> SegmentData:
    """The images of a raw folder of nnU-Net that has no ``labelsTr``: those of ``imagesTr`` and ``imagesTs``.

    Raises
    ------
    FewerError
        When dataset.json names no file ending, or there is no image.
    """
    facts = _json(root / "dataset.json")
    suffix = str(facts.get("file_ending") or "").lower() if isinstance(facts, dict) else ""
    if not suffix:
        raise FewerError(f"{root / 'dataset.json'} lacks the key 'file_ending', see: fewer doctor {root}")
    folders = [root / name for name in ("imagesTr", "imagesTs") if (root / name).is_dir()]
    files = {name: paths for folder in folders for name, paths in _channel_files(folder, suffix).items()}
    if not files:
        raise FewerError(f"{root} holds no image {suffix} in imagesTr/ or imagesTs/")
    cases = tuple(Case(name, paths) for name, paths in files.items())
    return SegmentData(root, "nnunet", (), cases, suffix=suffix)


def _channel_files(folder: Path, suffix: str) -> dict[str, tuple[Path, ...]]:
    found: dict[str, list[Path]] = {}
    for path in find_pictures(folder, (suffix,)):
        stem = picture_stem(path)
        name, _, channel = stem.rpartition("_")
        if not (name and len(channel) == 4 and channel.isdecimal()):
            raise FewerError(f"{path} must end in the number of its channel, for example {stem}_0000{suffix}")
        if int(channel) != len(found.setdefault(name, [])):  # they come in the order of their numbers
            raise FewerError(
                f"{folder} has no channel {len(found[name]):04d} of {name}, but {path.name}; channels are numbered "
                "from 0000 without gaps"
            )
        found[name].append(path)
    return {name: tuple(paths) for name, paths in found.items()}


def _classes(labels: Any, file: Path) -> dict[str, int]:
    if not isinstance(labels, dict) or not labels:
        raise FewerError(f'{file} must give each class a number, for example {{"background": 0, "lesion": 1}}')
    values: dict[str, int] = {}
    for name, value in labels.items():
        if isinstance(value, list):
            raise FewerError(f"{file}: {name!r} is a region of several labels; only classes with one number are read")
        if name == "ignore":
            raise FewerError(f"{file} has an 'ignore' label, which is not supported; remove those voxels or classes")
        if isinstance(value, bool) or not isinstance(value, int) or value < 0 or value in values.values():
            raise FewerError(f"{file}: the class {name!r} has the number {value!r}; numbers are whole and differ")
        values[str(name)] = value
    if 0 not in values.values():
        values = {"background": 0} | values
    return dict(sorted(values.items(), key=lambda pair: pair[1]))


def _splits(root: Path) -> tuple[Split, ...]:
    file = root / "splits_final.json"
    if not file.is_file():
        return ()
    try:
        return tuple(Split(tuple(fold["train"]), tuple(fold["val"])) for fold in _json(file))
    except (TypeError, KeyError):
        raise FewerError(f'{file} must be a list of {{"train": [names], "val": [names]}}') from None


def _json(path: Path) -> Any:
    return read_json(path)


def image_pool(files: Sequence[str | Path]) -> SegmentData:
    """A data set of images alone, one file each, for what needs no masks.

    Examples
    --------
    >>> [case.name for case in image_pool(["pool/a.png", "pool/b.png"]).unlabelled]
    ['a', 'b']
    """
    paths = [Path(file) for file in files]
    root = paths[0].parent if paths else Path()
    return SegmentData(root, "folder", (), tuple(Case(picture_stem(path), (path,)) for path in paths))


def channels_together(cases: Sequence[Case], channels: int) -> list[Case]:
    """Images that were listed file by file, with the channel files of nnU-Net (``NAME_0000``, ``NAME_0001``) as one.

    They stay apart unless all are called so, and every image has as many files as are wanted, or one.

    Parameters
    ----------
    cases
        Of one file each.
    channels
        That an image must have.

    Examples
    --------
    >>> files = image_pool(["a_0000.nii.gz", "a_0001.nii.gz"]).unlabelled
    >>> [case.name for case in channels_together(files, 2)], [case.name for case in channels_together(files, 3)]
    (['a'], ['a_0000', 'a_0001'])
    """
    groups: dict[str, list[tuple[int, Path]]] = {}
    for case in cases:
        name, mark, channel = case.name.rpartition("_")
        if not (mark and name and len(channel) == 4 and channel.isdecimal()):
            return list(cases)
        groups.setdefault(name, []).append((int(channel), case.images[0]))
    numbers = {tuple(sorted(number for number, _ in files)) for files in groups.values()}
    if numbers not in ({tuple(range(channels))}, {(0,)}):  # others count images, such as img_0001.png
        return list(cases)
    if numbers != {(0,)} and _is_colour(cases[0].images[0]):  # img_0000.png to img_0002.png may be three photos
        return list(cases)
    return [Case(name, tuple(path for _, path in sorted(files))) for name, files in groups.items()]


def masks_apart(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Images of a folder, and masks that lie among them: ``NAME_mask`` or alike beside ``NAME``.

    Examples
    --------
    >>> [[path.name for path in part] for part in masks_apart([Path("a.png"), Path("a_mask.png")])]
    [['a.png'], ['a_mask.png']]
    """
    stems = {picture_stem(path) for path in files}

    def is_mask(path: Path) -> bool:
        own = re.sub(r"_\d+$", "", picture_stem(path))  # some have several, NAME_mask and NAME_mask_1
        return any(own.endswith(end) and own[: -len(end)] in stems for end in ENDINGS)

    masks = {path for path in files if is_mask(path)}
    return [path for path in files if path not in masks], [path for path in files if path in masks]


def _is_colour(path: Path) -> bool:
    try:
        return len(read_picture(path).array) > 1
    except FewerError:  # whoever uses it will tell
        return False
