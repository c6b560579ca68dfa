"""The data of an adaptation: a labelled source, a target without masks, and whether the two fit together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import files_below, real_path
from fewer.core.reading import refusing
from fewer.core.subjects import Subjects, draw_groups
from fewer.study.tables import read_names
from fewer.tasks.folders import pictures_and_masks, pictures_of
from fewer.tasks.segment.adapt_settings import AdaptSettings
from fewer.tasks.segment.dataset import (
    Case,
    SegmentData,
    channels_together,
    find_pictures,
    image_pool,
    masks_apart,
    nnunet_pool,
    open_data,
)
from fewer.tasks.segment.files import SUFFIXES, Picture, picture_stem, read_picture, suffix_of
from fewer.tasks.segment.preparation import Preparation, fit_preparation
from fewer.tasks.segment.reading import read_case
from fewer.tasks.segment.scoring import with_classes
from fewer.tasks.segment.turning import axes_of, order_of

__all__ = ["Domains", "open_domains"]


@dataclass(frozen=True)
class Domains:
    """Cases of both domains.

    Attributes
    ----------
    data
        The source's data set, which gives the classes.
    source, held, unlabelled
        Source cases that train, that judge, and whose masks are not used.
    target
        Without masks.
    answers
        Target cases with masks, for the oracle alone; empty for every other method.
    notes
        What a user should know.
    voxels
        Of all scans together, as they are resampled.
    measured
        Whether all scans have a spacing and are brought to one, so that a structure is as large in voxels in each.
    """

    data: SegmentData
    source: tuple[Case, ...]
    held: tuple[Case, ...]
    unlabelled: tuple[Case, ...]
    target: tuple[Case, ...]
    answers: tuple[Case, ...]
    target_data: SegmentData
    preparation: Preparation
    notes: tuple[str, ...]
    voxels: int = 0
    measured: bool = False


def open_domains(source: str | Path, target: str | Path, settings: AdaptSettings) -> Domains:
    """Open both folders and see that they fit each other.

    Raises
    ------
    FewerError
        When a folder is missing, the source has no mask or lacks a class, the target has fewer than two scans, or the
        two differ in axes or channels, or in whether they have a spacing.
    """
    data = open_data(source)
    if not data.cases:
        raise FewerError(f"the source {source} has no masks; give a folder with images/ and masks/, or one of nnU-Net")
    oracle = settings.method == "target-oracle"
    first = data.cases[0]
    channels = len(read_picture(first.images[0]).array) * len(first.images)
    other, masks = _open_target(Path(target), channels, oracle)
    notes = []
    if masks:
        notes.append(
            f"the target folder holds {masks} masks; they are ignored: no target label trains or chooses "
            "(score with --test, or afterwards with fewer eval --all-data)"
        )
    if oracle:
        if not other.cases:
            raise FewerError(f"the method target-oracle needs masks of the target; {target} has none")
        notes.append("target-oracle trains on the masks of the target: it is for benchmarks, not an adaptation")
    if real_path(source) == real_path(target):
        notes.append("source and target are one folder: there is nothing to adapt to")
    target_cases = tuple(Case(case.name, case.images) for case in (*other.cases, *other.unlabelled))
    if len(target_cases) < 2:
        raise FewerError(f"the target {target} holds {len(target_cases)} scan; an adaptation needs two or more")
    labelled, rest = _labelled(data, settings)
    subjects = data.subjects(settings.subject)
    if told := subjects.sentence():
        notes.append(told)
    chosen, held = _split(labelled, _classes_of(data, labelled), subjects)
    if held[0] in chosen:
        notes.append(
            "no labelled scan can be spared, so those that train judge as well: Dice on held-out source is that of the "
            "training"
        )
    here, there = _pictures((*labelled, *rest)), _pictures(target_cases)
    _check_fit(data.root, here, Path(target), there)
    pictures = [*here, *there]
    _check_spaced(pictures, settings)
    preparation = fit_preparation(data, [*chosen, *target_cases], settings)
    voxels = sum(_size(picture, case, preparation) for case, picture in pictures)
    notes += _turned(pictures, preparation)
    measured = settings.spacing != "native" and all(picture.spaced for _, picture in pictures)
    answers: tuple[Case, ...] = ()
    if oracle:
        other = with_classes(other, preparation)
        answers = other.cases
    return Domains(data, chosen, held, rest, target_cases, answers, other, preparation, tuple(notes), voxels, measured)


def _open_target(root: Path, channels: int, oracle: bool) -> tuple[SegmentData, int]:
    """The images of the target, and how many masks lie beside them, which nobody but the oracle opens."""
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise FewerError(f"the target {root} {what}; give a folder of images")
    raw, both = (root / "dataset.json").is_file(), pictures_and_masks(root)
    if oracle and both is not None:
        return open_data(root), 0
    masks = 0 if both is None else len(find_pictures(both[1]))
    if raw:
        return nnunet_pool(root), masks
    files, beside = masks_apart(find_pictures(pictures_of(root) or root))
    if not files:
        deeper = next((p.relative_to(root) for p in files_below(root) if suffix_of(p) in SUFFIXES), None)
        hint = "" if deeper is None else f"; some lie deeper, such as {deeper}: put all into one folder"
        raise FewerError(f"the target {root} holds no image (PNG, TIFF, JPEG or NIfTI){hint}")
    cases = channels_together(image_pool(files).unlabelled, channels)
    return SegmentData(root, "folder", (), tuple(cases)), masks + len(beside)


def _labelled(data: SegmentData, settings: AdaptSettings) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Cases whose masks are used, in a random order or that of a list; and the others."""
    cases = list(data.cases)
    order = [cases[i] for i in np.random.default_rng([settings.seed, 3]).permutation(len(cases))]
    wanted = settings.source_labels or len(cases)
    if wanted > len(cases):
        raise FewerError(f"--source-labels {wanted}: the source has {len(cases)} masks")
    if settings.source_list is not None:
        order = _listed(data, settings.source_list, wanted)
    labelled = order[:wanted]
    used = {case.name for case in labelled}
    return tuple(labelled), tuple(Case(c.name, c.images) for c in (*cases, *data.unlabelled) if c.name not in used)


MOST_HELD = 0.4
"""Share of the labelled cases that one subject may have and judge; more labels than that are not given away."""


def _split(
    labelled: Sequence[Case], classes: Mapping[str, frozenset[int]], subjects: Subjects
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Cases that train, and those that judge; a case that judges counts as a label too.

    A fifth of them judges, from four on, and all of a subject or none; but none that alone has a class, which could not
    be learned then. Where no case can be spared, those that train judge as well.
    """
    train = [case.name for case in labelled]
    groups = subjects.groups(train)[::-1]
    count = max(1, len(labelled) // 5) if len(labelled) >= 4 else 0

    def claim(index: int) -> bool:
        nonlocal train
        own, rest = groups[index], [name for name in train if name not in groups[index]]
        seen, others = (frozenset().union(*(classes[name] for name in part)) for part in (own, rest))
        free = len(own) <= max(1, MOST_HELD * len(labelled)) and seen <= others
        train = rest if free else train
        return free

    draw_groups([len(group) for group in groups], range(len(groups)), count, claim)
    held = tuple(case for case in labelled if case.name not in train)
    return tuple(case for case in labelled if case.name in train), held or tuple(labelled)


CHANNEL = re.compile(r"_\d{4}$")
"""The number that nnU-Net puts behind the name of a case."""


def _listed(data: SegmentData, file: str, wanted: int) -> list[Case]:
    with refusing(str(file), "give a list of case names"):
        names = read_names(file)
    known = {case.name: case for case in data.cases}
    found = []
    for cell in names:
        name = Path(cell).name
        stem = picture_stem(Path(name)) if suffix_of(Path(name)) in SUFFIXES else name
        # a case may have dots in its name, or a number like that of a channel; the very name comes first
        case = next((known[one] for one in (name, stem, CHANNEL.sub("", stem)) if one in known), None)
        if case is not None and case not in found:
            found.append(case)
    if len(found) < wanted:
        raise FewerError(f"{file} names {len(found)} cases of {data.root} that have masks; {wanted} are asked for")
    return found


Pictures = Sequence[tuple[Case, Picture]]
"""Cases, and the first file of each."""


def _pictures(cases: Sequence[Case]) -> Pictures:
    return [(case, read_picture(case.images[0])) for case in cases]


def _check_fit(source: Path, here: Pictures, target: Path, there: Pictures) -> None:
    for pictures in (here, there):
        _check_axes(pictures)
    (_, first), (_, other) = here[0], there[0]
    if first.array.ndim != other.array.ndim:
        raise FewerError(
            f"{source} is {first.array.ndim - 1}-dimensional and {target} {other.array.ndim - 1}-dimensional"
        )
    counts = []
    for pictures in (here, there):
        channels = [len(picture.array) * len(case.images) for case, picture in pictures]
        odd = next((i for i, count in enumerate(channels) if count != channels[0]), None)
        if odd is not None:
            raise FewerError(
                f"{pictures[odd][0].images[0]} has {channels[odd]} channels and {pictures[0][0].images[0].name} "
                f"{channels[0]}; save all scans with as many, grey or in colour"
            )
        counts.append(channels[0])
    if counts[0] != counts[1]:
        raise FewerError(f"source images have {counts[0]} channels, target images {counts[1]}; save both with as many")


def _check_axes(pictures: Pictures) -> None:
    case, first = pictures[0]
    for other, picture in pictures:
        if picture.array.ndim != first.array.ndim:
            raise FewerError(
                f"{other.images[0]} is {picture.array.ndim - 1}-dimensional and {case.images[0].name} "
                f"{first.array.ndim - 1}-dimensional; a volume of one slice is an image: give scans of one kind"
            )


def _check_spaced(pictures: Pictures, settings: AdaptSettings) -> None:
    spaced = {picture.spaced for _, picture in pictures}
    if len(spaced) > 1 and settings.spacing != "native":
        without = next(case.images[0] for case, picture in pictures if not picture.spaced)
        raise FewerError(f"{without} gives no spacing, others do; add a NAME.json with it, or give --spacing native")


def _turned(pictures: Pictures, preparation: Preparation) -> list[str]:
    """What a person should know of scans that lie otherwise than most, or show another plane of the body."""
    wanted, notes = preparation.axes, []
    if wanted is None:
        return []
    told = [(case, axes) for case, picture in pictures if (axes := axes_of(picture)) and axes != wanted]
    turned = [axes for _, axes in told if order_of(axes, wanted) is not None]
    if turned:
        notes.append(
            f"{len(turned)} of {len(pictures)} scans are turned by whole voxels, so that their axes run {wanted} as "
            f"those of most (theirs: {', '.join(sorted(set(turned)))})"
        )
    others = [(case, axes) for case, axes in told if order_of(axes, wanted) is None]
    if others:
        case, axes = others[0]
        notes.append(
            f"{len(others)} of {len(pictures)} images show another plane of the body than most, whose axes run "
            f"{wanted}, such as {case.images[0].name} ({axes}): look whether they belong here"
        )
    lost = [case for case, picture in pictures if picture.spaced and picture.affine is None]
    if lost:
        notes.append(
            f"{len(lost)} of {len(pictures)} scans do not say where they lie in space, such as "
            f"{lost[0].images[0].name}: their axes are taken to run {wanted} as those of most others"
        )
    return notes


MOST_SCALED = 20
"""Times that a scan may become larger or smaller along an axis when it gets the spacing of the others."""


def _size(picture: Picture, case: Case, preparation: Preparation) -> int:
    """Voxels of a scan after resampling."""
    shape = preparation.shape_of(picture)
    for own, step, new in zip(*preparation.lying(picture), shape, strict=True):
        if not own / MOST_SCALED <= new <= own * MOST_SCALED:
            raise FewerError(
                f"{case.images[0]} has a spacing of {step:g} mm, and at that of most scans it would be {new} voxels "
                f"long in place of {own}; correct it in the file, or give --spacing native"
            )
    return prod(shape)


def _classes_of(data: SegmentData, cases: Sequence[Case]) -> dict[str, frozenset[int]]:
    """Structures that each case has.

    Raises
    ------
    FewerError
        When a class of the data set is in none of them.
    """
    found: dict[str, frozenset[int]] = {}
    for case in cases:
        mask = read_case(data, case).mask
        assert mask is not None
        found[case.name] = frozenset(np.unique(mask).tolist()) - {0}
    seen = frozenset().union(*found.values())
    names = list(data.classes)
    if not seen:
        raise FewerError(f"the masks of the source {data.root} that are used are all empty: there is nothing to learn")
    missing = [name for value, name in enumerate(names) if value and value not in seen]
    if missing:
        raise FewerError(
            f"the {len(cases)} source scans that are used have no {', '.join(missing)}; give more --source-labels, or "
            "take the class out of the data set"
        )
    return found
