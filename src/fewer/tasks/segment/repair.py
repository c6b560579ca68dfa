"""``fewer doctor --fix``: a repaired copy of a data set, and a list of what was changed; the original stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.progress import Progress, Silent
from fewer.tasks.findings import Finding, Repaired, whole_copy
from fewer.tasks.segment.dataset import Split
from fewer.tasks.segment.doctor import Checkup, Look
from fewer.tasks.segment.files import LOSSLESS, Picture, read_picture, suffix_of
from fewer.tasks.segment.geometry import onto, resample_onto
from fewer.tasks.segment.nnunet import write_nnunet

__all__ = ["repair"]

LEFT_OUT = {"unreadable", "shape", "axes", "mask-values", "duplicate"}
"""Findings for which a case is left out of the copy."""
UNSAFE = {"nan", "unknown-label", "contradiction"}
"""Errors that only a person can decide on; such cases are left out too, and named."""


def repair(found: Checkup, out: str | Path, *, progress: Progress | None = None) -> Repaired:
    """Write a copy of a data set in which everything that is safe to mend is mended.

    Labels are renumbered without gaps, masks are brought onto the grid of their images but never moved in space, and
    duplicates and cases that cannot be used are left out. What was done stands in ``changes.json`` of the copy.

    Parameters
    ----------
    found
        From :func:`~fewer.tasks.segment.doctor.checkup`.
    out
        A folder that does not exist yet.

    Raises
    ------
    FewerError
        When the folder exists, nothing is left, or the disk is full; then nothing half-written stays.
    """
    out, data = Path(out), found.data
    changed, left_out = [], []
    keep: list[Look] = []
    for look in found.looks:
        bad = [f for f in look.findings if _drops(f)]
        if bad:
            left_out.append(f"{look.case.name}: {bad[0].text}")
        else:
            keep.append(look)
    left_out += [f.text for f in found.findings if f.check == "orphan-mask"]
    if not any(look.labelled for look in keep):
        raise FewerError(f"no annotated case of {data.root} could be kept; see what is wrong: fewer doctor {data.root}")
    # masks that cannot be read have no say in what the classes are
    data = data if data.declared is not None else replace(data, cases=tuple(k.case for k in keep if k.labelled))
    values = list(data.classes.values())
    classes = {name: index for index, name in enumerate(data.classes)}
    for index, value in enumerate(values):
        if index != value:
            changed.append(f"label {value} is now {index} in all masks")
    channels = max(look.channels for look in keep if "channels" not in look.checks)
    suffix = data.suffix if data.suffix in LOSSLESS else ".png"
    if suffix == ".nii":
        suffix = ".nii.gz"
    kept = {look.case.name for look in keep}
    splits = [Split(_only(split.train, kept), _only(split.val, kept)) for split in data.splits]
    with whole_copy(out) as whole:
        with (progress or Silent()).stage("write", len(keep)) as stage:

            def cases() -> Iterator[tuple[str, Picture, np.ndarray | None]]:
                for look in keep:
                    yield _mended(look, values, channels, changed)
                    stage.advance(1, look.case.name)

            write_nnunet(
                whole,
                cases(),
                classes=classes,
                channels=data.channels or _channel_names(channels),
                suffix=suffix,
                splits=splits,
            )
        return Repaired(out, len(keep), tuple(changed), tuple(left_out)).note(whole)


def _drops(finding: Finding) -> bool:
    if finding.check in LEFT_OUT | UNSAFE:
        return True
    if finding.check == "leak":
        return finding.fix != ""
    if finding.check == "geometry":
        return "left out" in finding.fix
    return finding.check == "channels" and "left out" in finding.fix


def _only(names: tuple[str, ...], kept: set[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in kept)


def _channel_names(channels: int) -> list[str]:
    return ["R", "G", "B"] if channels == 3 else [f"channel {index}" for index in range(channels)]


def _mended(look: Look, values: list[int], channels: int, changed: list[str]) -> tuple[str, Picture, np.ndarray | None]:
    pictures = [read_picture(path) for path in look.case.images]
    for at, path in enumerate(look.case.images[1:], 1):
        pictures[at] = onto(pictures[at], pictures[0], path.name, look.case.images[0].name)
    array = np.concatenate([picture.array for picture in pictures])
    picture, name = pictures[0], look.case.name
    if len(array) != channels:
        array = array[:channels] if len(array) > channels else np.repeat(array[:1], channels, axis=0)
        changed.append(f"{name}: {look.channels} channels are now {channels}")
    if look.case.mask is None:
        return name, replace(picture, array=array), None
    found = read_picture(look.case.mask, mask=True)
    found, done = resample_onto(found, picture, f"the mask {look.case.mask}")
    assert found.numbers is not None  # a case of different channels is left out
    mask = found.numbers.astype(np.int64)
    if done:
        changed.append(f"{name}: the mask stays where it is in space; {done}")
    if suffix_of(look.case.mask) != suffix_of(look.case.images[0]):
        changed.append(f"{name}: image and mask are now files of one kind")
    return name, replace(picture, array=array), np.searchsorted(values, mask).astype(np.uint8)
