"""The data of an adaptation: a labelled source, a target without masks, and whether the two fit together."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error
from fewer.tasks.folders import pictures_and_masks, pictures_of
from fewer.tasks.segment.adapt_settings import AdaptSettings
from fewer.tasks.segment.dataset import Case, SegmentData, find_pictures, image_pool, open_data
from fewer.tasks.segment.files import read_picture
from fewer.tasks.segment.preparation import Preparation, fit_preparation
from fewer.tasks.segment.reading import read_case, read_image

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
    target_root
        Folder.
    notes
        What a user should know.
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
    other = _open_target(Path(target))
    notes = []
    oracle = settings.method == "target-oracle"
    if other.cases and not oracle:
        notes.append(
            f"the target folder holds {len(other.cases)} masks; they are ignored: no target label trains or chooses "
            "(score with --test, or afterwards with fewer eval)"
        )
    if oracle:
        if not other.cases:
            raise FewerError(f"the method target-oracle needs masks of the target; {target} has none")
        notes.append("target-oracle trains on the masks of the target: it is for benchmarks, not an adaptation")
    target_cases = tuple(Case(case.name, case.images) for case in (*other.cases, *other.unlabelled))
    if len(target_cases) < 2:
        raise FewerError(f"the target {target} holds {len(target_cases)} scan; an adaptation needs two or more")
    chosen, held, rest = _split(data, settings)
    _check_fit(data, chosen, target_cases, Path(target), settings)
    _check_classes(data, (*chosen, *held))
    preparation = fit_preparation(data, [*chosen, *target_cases], settings)
    answers: tuple[Case, ...] = ()
    if oracle:
        other = other if other.declared is not None else replace(other, declared=data.classes)
        if tuple(other.classes.values()) != tuple(data.classes.values()):
            raise FewerError(f"the target has the classes {dict(other.classes)}, the source {dict(data.classes)}")
        answers = other.cases
    return Domains(data, chosen, held, rest, target_cases, answers, other, preparation, tuple(notes))


def _open_target(root: Path) -> SegmentData:
    if not root.is_dir():
        raise FewerError(f"the target {root} does not exist; give a folder of images")
    if (root / "dataset.json").is_file() or pictures_and_masks(root) is not None:
        return open_data(root)
    files = find_pictures(pictures_of(root) or root)
    if not files:
        raise FewerError(f"the target {root} holds no image (PNG, TIFF, JPEG or NIfTI)")
    return replace(image_pool(files), root=root)


def _split(data: SegmentData, settings: AdaptSettings) -> tuple[tuple[Case, ...], tuple[Case, ...], tuple[Case, ...]]:
    """Cases that train, that judge, and whose masks are not used; a case that judges counts as a label too."""
    cases = list(data.cases)
    order = [cases[i] for i in np.random.default_rng([settings.seed, 3]).permutation(len(cases))]
    wanted = settings.source_labels or len(cases)
    if wanted > len(cases):
        raise FewerError(f"--source-labels {wanted}: the source has {len(cases)} masks")
    if settings.source_list is not None:
        order = _listed(data, settings.source_list, wanted)
    labelled = order[:wanted]
    used = {case.name for case in labelled}
    rest = tuple(Case(c.name, c.images) for c in (*cases, *data.unlabelled) if c.name not in used)
    count = len(labelled) // 5 if len(labelled) >= 4 else 0
    count = max(count, 1) if len(labelled) >= 4 else 0
    held = labelled[len(labelled) - count :] if count else labelled
    return tuple(labelled[: len(labelled) - count]), tuple(held), rest


def _listed(data: SegmentData, file: str, wanted: int) -> list[Case]:
    try:
        with Path(file).open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines))
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            raise explain_os_error(error, Path(file), "read") from None
        raise FewerError(f"{file} is no text; give a list of case names") from None
    known = {case.name: case for case in data.cases}
    found = []
    for row in rows:
        for cell in row:
            name = Path(cell.strip()).name
            stem = name.split(".")[0]
            stem = stem[:-5] if stem[-5:-4] == "_" and stem[-4:].isdecimal() else stem
            if stem in known and known[stem] not in found:
                found.append(known[stem])
    if len(found) < wanted:
        raise FewerError(f"{file} names {len(found)} cases of {data.root} that have masks; {wanted} are asked for")
    return found


def _check_fit(
    data: SegmentData, source: Sequence[Case], target: Sequence[Case], root: Path, settings: AdaptSettings
) -> None:
    here, there = read_image(source[0]), read_image(target[0])
    if here[0].ndim != there[0].ndim:
        raise FewerError(f"{data.root} is {here[0].ndim - 1}-dimensional and {root} {there[0].ndim - 1}-dimensional")
    if len(here[0]) != len(there[0]):
        raise FewerError(
            f"source images have {len(here[0])} channels, target images {len(there[0])}; save both with as many"
        )
    pictures = [(case, read_picture(case.images[0])) for case in (*source, *target)]
    spaced = {picture.spaced for _, picture in pictures}
    if len(spaced) > 1 and settings.spacing != "native":
        without = next(case.images[0] for case, picture in pictures if not picture.spaced)
        raise FewerError(f"{without} gives no spacing, others do; add a NAME.json with it, or give --spacing native")


def _check_classes(data: SegmentData, cases: Sequence[Case]) -> None:
    seen: set[int] = set()
    for case in cases:
        mask = read_case(data, case).mask
        assert mask is not None
        seen |= set(np.unique(mask).tolist())
    names = list(data.classes)
    if not seen - {0}:
        raise FewerError(f"the masks of the source {data.root} that are used are all empty: there is nothing to learn")
    missing = [name for value, name in enumerate(names) if value and value not in seen]
    if missing:
        raise FewerError(
            f"the {len(cases)} source scans that are used have no {', '.join(missing)}; give more --source-labels, or "
            "take the class out of the data set"
        )
