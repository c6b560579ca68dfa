"""Find and name what is wrong with a segmentation data set, before it costs a night of training."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.progress import Progress, Silent
from fewer.tasks.findings import Finding, finding_lines
from fewer.tasks.segment.dataset import MOST_VALUES, Case, SegmentData, open_data
from fewer.tasks.segment.files import Picture, read_picture
from fewer.tasks.segment.geometry import GeometryError, onto, resample_onto
from fewer.tasks.segment.turning import axes_of

__all__ = ["CHECKS", "Checkup", "Finding", "Look", "checkup"]

CHECKS = {
    "unreadable": ("error", "a file cannot be read"),
    "orphan-mask": ("warning", "a mask has no image"),
    "shape": ("error", "image and mask, or the files of one image, differ in shape"),
    "geometry": ("error", "a header contradicts itself, or image and mask do not lie in the same place in space"),
    "place": ("warning", "it is not clear where a volume lies in space"),
    "unused": ("warning", "files lie in the folders of the data set that are not read"),
    "channels": ("error", "an image has another number of channels than most"),
    "axes": ("error", "an image has another number of axes than most"),
    "nan": ("error", "an image holds NaN or infinity"),
    "constant": ("warning", "an image has the same value everywhere"),
    "mask-values": ("error", "a mask holds no class numbers"),
    "unknown-label": ("error", "a mask holds a number that no class has"),
    "label-gaps": ("error", "labels are not 0, 1, 2, ... without gaps"),
    "absent-class": ("warning", "no mask holds a class that is declared"),
    "empty-mask": ("warning", "a mask is empty: nothing is annotated"),
    "duplicate": ("warning", "two cases have the same image"),
    "contradiction": ("error", "two cases have the same image and different masks"),
    "leak": ("error", "an image that trains also judges, or is in the test folder"),
    "subject": ("warning", "images of one subject both train and judge"),
    "split": ("error", "splits_final.json names a case that does not exist"),
    "count": ("warning", "numTraining is not the number of cases"),
    "spacing": ("warning", "spacings differ much between cases"),
}
"""Every check: how bad it is, and what it means."""

SPACING_RATIO = 3.0


@dataclass
class Look:
    """What was seen of one case; ``None`` where it could not be read."""

    case: Case
    image: Picture | None = None
    channels: int = 0
    space: tuple[int, ...] = ()
    image_hash: str = ""
    mask_hash: str = ""
    values: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    labelled: bool = True

    def add(self, check: str, text: str, fix: str = "", level: str = "") -> None:
        """Note a finding, by default as bad as its check."""
        self.findings.append(Finding(check, level or CHECKS[check][0], self.case.name, text, fix))

    @property
    def checks(self) -> set[str]:
        """Names of what was found."""
        return {finding.check for finding in self.findings}


@dataclass(frozen=True, repr=False)
class Checkup(Told):
    """The result: what the data set is, and what is wrong with it.

    Attributes
    ----------
    data
        As it was listed.
    looks
        What was seen of each case.
    findings
        All of them, errors first.
    facts
        Cases, shapes, spacings, voxels of each class.
    """

    data: SegmentData
    looks: tuple[Look, ...]
    findings: tuple[Finding, ...]
    facts: dict[str, Any]

    @property
    def errors(self) -> list[Finding]:
        """Findings that would stop or spoil a training."""
        return [finding for finding in self.findings if finding.level == "error"]

    meanings: ClassVar[dict[str, tuple[str, str]]] = CHECKS
    """Level and meaning of each check."""

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def lines(self) -> list[str]:
        """What the data set is, then the findings by check, so many of each."""
        facts = self.facts
        told = [f"{facts['annotated']} annotated cases, {facts['without mask']} without a mask"]
        told.append(f"{facts['axes']}-D, {facts['channels']} channel" + ("s" if facts["channels"] != 1 else ""))
        if "shape" in facts:
            least, most = (" x ".join(map(str, facts["shape"][name])) for name in ("least", "most"))
            told.append(f"shape {least}" + (f" to {most}" if most != least else ""))
        if "spacing mm" in facts:
            told.append("spacing " + " x ".join(f"{step:g}" for step in facts["spacing mm"]) + " mm")
        if len(lying := facts.get("axes run", {})) > 1:
            told.append(
                f"axes run {', '.join(f'{axes} in {count}' for axes, count in lying.items())}; training turns them"
            )
        shares = ", ".join(f"{name} {share:.2%}" for name, share in facts["classes"].items())
        return [", ".join(told), f"voxels: {shares}", *finding_lines(self.findings, CHECKS)]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        findings = [asdict(finding) for finding in self.findings]
        return {"root": str(self.data.root), "healthy": self.healthy, "facts": self.facts, "findings": findings}

    def to_json(self) -> str:
        """Indented JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def checkup(data: SegmentData | str | Path, *, progress: Progress | None = None) -> Checkup:
    """Look at every file of a data set.

    Parameters
    ----------
    data
        Folder, or a data set that was opened.
    progress
        Shows a stage.

    Returns
    -------
    Checkup

    Raises
    ------
    FewerError
        When the folder is no data set at all.

    Examples
    --------
    >>> checkup("lesions/").healthy  # doctest: +SKIP
    True
    """
    data = data if isinstance(data, SegmentData) else open_data(data)
    voxels: Counter[int] = Counter()
    looks = []
    labelled = {case.name for case in data.cases}
    with (progress or Silent()).stage("look", len(data.cases) + len(data.unlabelled)) as stage:
        for case in (*data.cases, *data.unlabelled):
            looks.append(_look(case, data, voxels, case.name in labelled))
            stage.advance(1, case.name)
    whole = Look(Case("", ()))
    if not data.cases:
        raise FewerError(f"{data.root} has no case with an image and a mask; give both the same name")
    for path in data.orphans:
        whole.add("orphan-mask", f"{path.name} has no image of its name", "is left out")
    if data.unused:
        names = ", ".join(path.name for path in data.unused[:5]) + ", ..." * (len(data.unused) > 5)
        whole.add("unused", f"{len(data.unused)} files are not read: {names}", "is left out")
    if data.layout == "nnunet" and data.channels:
        for look in looks:
            if look.channels and len(look.case.images) != len(data.channels) and look.channels != len(data.channels):
                text = f"the image has {look.channels} channels, dataset.json declares {len(data.channels)}"
                look.add("channels", text, "the case is left out")
    if data.count is not None and data.count != len(data.cases):
        text = f"dataset.json claims {data.count} training cases; there are {len(data.cases)}"
        whole.add("count", text, "is written anew")
    _majority(looks)
    _labels(data, looks, whole)
    _twins(data, looks, whole)
    _spacings(looks, whole)
    findings = [finding for look in (whole, *looks) for finding in look.findings]
    order = list(CHECKS)
    findings.sort(key=lambda f: (f.level != "error", order.index(f.check), f.case))
    return Checkup(data, tuple(looks), tuple(findings), _facts(data, looks, voxels))


def _look(case: Case, data: SegmentData, voxels: Counter[int], labelled: bool) -> Look:
    look = Look(case, labelled=labelled)
    pictures = []
    for path in case.images:
        try:
            picture = read_picture(path)
            pictures.append(onto(picture, pictures[0], path.name, case.images[0].name) if pictures else picture)
        except FewerError as error:
            if isinstance(error, GeometryError):
                check = "geometry"
            else:
                check = "shape" if " has the shape " in str(error) else "unreadable"
            look.add(check, str(error), "the case is left out")
            return look
    first = pictures[0]
    if first.doubt:
        look.add("place", f"{case.images[0].name}: {first.doubt}")
    # the pixels are let go: only what later checks need is kept of a picture
    look.image = Picture(np.empty((0, *(0,) * len(first.space))), first.spacing, first.affine, first.spaced)
    look.space, look.channels = first.space, sum(len(picture.array) for picture in pictures)
    digest = hashlib.sha256()
    for picture in pictures:
        array = np.ascontiguousarray(picture.array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            look.add("nan", f"the image holds {int((~np.isfinite(array)).sum())} values that are NaN or infinite")
    look.image_hash = digest.hexdigest()
    if "nan" not in look.checks and all(picture.array.min() == picture.array.max() for picture in pictures):
        look.add("constant", f"every pixel of the image is {first.array.flat[0]}")
    if case.mask is not None:
        _look_at_mask(look, case.mask, first, voxels)
    return look


def _look_at_mask(look: Look, path: Path, image: Picture, voxels: Counter[int]) -> None:
    try:
        mask = read_picture(path, mask=True)
    except FewerError as error:
        check = "geometry" if isinstance(error, GeometryError) else "unreadable"
        look.add(check, str(error), "the case is left out")
        return
    if mask.doubt:
        look.add("place", f"{path.name}: {mask.doubt}")
    if (mask.affine is None) != (image.affine is None) and mask.space == image.space:
        look.add("place", "only one of image and mask says where it lies in space; their voxels are taken one to one")
    _compare(look, mask, image)
    if mask.numbers is None:
        look.add("mask-values", f"the mask has {len(mask.array)} different channels", "the case is left out")
        return
    values, counts = np.unique(mask.numbers, return_counts=True)
    if len(values) > MOST_VALUES or not np.isfinite(values).all() or (values != np.round(values)).any():
        what = f"{len(values)} different values" if len(values) > MOST_VALUES else "values with a fraction"
        look.add(
            "mask-values", f"the mask holds {what}; it is a picture, or was saved with loss", "the case is left out"
        )
        return
    if values[0] < 0 or values[-1] >= 2**31:
        what = (
            f"the negative value {values[0]:g}"
            if values[0] < 0
            else f"the value {float(values[-1]):g}, no class number"
        )
        look.add("mask-values", f"the mask holds {what}", "the case is left out")
        return
    look.values = [int(value) for value in values]
    look.mask_hash = hashlib.sha256(np.ascontiguousarray(mask.numbers).astype(np.int32).tobytes()).hexdigest()
    for value, count in zip(look.values, counts, strict=True):
        voxels[value] += int(count)
    if look.values == [0]:
        look.add("empty-mask", "the mask is empty; if nothing was annotated yet, take it away")


def _compare(look: Look, mask: Picture, image: Picture) -> None:
    """Say how a mask lies to its image, and what a repair would do about it."""
    flat = replace(image, array=np.broadcast_to(np.uint8(0), (1, *image.space)))
    try:
        if onto(mask, flat, "the mask", "its image") is not mask:
            text = "the voxels of the mask are stored in another order of axes than those of its image"
            look.add("geometry", text, "they are turned, exactly", "warning")
        return
    except FewerError as error:
        text = str(error)
        check = "geometry" if isinstance(error, GeometryError) else "shape"
    try:
        _, done = resample_onto(mask, flat, "the mask")
        look.add("geometry", text, done)
    except FewerError as error:
        look.add(check, text if str(error) in text else f"{text}; {error}", "the case is left out")


def _majority(looks: Sequence[Look]) -> None:
    seen = [look for look in looks if look.space]
    if not seen:
        return
    channels = Counter(look.channels for look in seen).most_common(1)[0][0]
    axes = Counter(len(look.space) for look in seen).most_common(1)[0][0]
    for look in seen:
        if look.channels != channels:
            can = (look.channels, channels) in ((4, 3), (1, 3), (2, 1))
            fix = {4: "transparency is dropped", 1: "grey is repeated as three colours", 2: "transparency is dropped"}
            text = f"the image has {look.channels} channels, most have {channels}"
            look.add("channels", text, fix[look.channels] if can else "the case is left out")
        if len(look.space) != axes:
            text = f"the image has {len(look.space)} axes, most have {axes}"
            look.add("axes", text, "the case is left out")


def _labels(data: SegmentData, looks: Sequence[Look], whole: Look) -> None:
    found = {value for look in looks for value in look.values}
    declared = data.declared
    if declared is not None:
        for look in looks:
            strange = [value for value in look.values if value not in declared.values()]
            if strange:
                told = ", ".join(f"{name} {value}" for name, value in declared.items())
                look.add("unknown-label", f"the mask holds {strange[0]}, which is no class ({told})")
        for name, value in declared.items():
            if value not in found and value:
                whole.add("absent-class", f"no mask holds the class {name!r} ({value})")
    values = sorted(set(declared.values()) if declared is not None else found | {0})
    # a single foreground value, such as 255, is usual in a plain folder and read as class 1
    plain = data.layout == "folder" and len(values) == 2
    if values != list(range(len(values))) and not plain:
        shown = ", ".join(map(str, values[:12]))
        told = f"the labels are {shown}; nnU-Net and others want 0 to {len(values) - 1}"
        mapping = ", ".join(f"{value} to {index}" for index, value in enumerate(values) if value != index)
        level = "error" if data.layout == "nnunet" else "warning"  # in a plain folder they are renumbered on reading
        whole.add("label-gaps", told, f"renumbers {mapping}", level)


def _twins(data: SegmentData, looks: Sequence[Look], whole: Look) -> None:
    groups: dict[str, list[Look]] = defaultdict(list)
    for look in looks:
        if look.image_hash:
            groups[look.image_hash].append(look)
    for group in groups.values():
        first = group[0]
        for other in group[1:]:
            name = first.case.name
            if first.labelled != other.labelled:
                other.add("leak", f"the image without a mask is that of the annotated case {name}", "is left out")
            elif first.mask_hash != other.mask_hash:
                other.add("contradiction", f"the image is that of {name}, the mask is not")
            else:
                other.add("duplicate", f"image and mask are those of {name}", "the copy is left out")
            for number, split in enumerate(data.splits):
                sides = [{x.case.name} & set(part) for x in (first, other) for part in (split.train, split.val)]
                if (sides[0] and sides[3]) or (sides[1] and sides[2]):
                    other.add("leak", f"in fold {number} it judges what {name}, the same image, has trained")
    by_name = {look.case.name: look for look in looks}
    own = data.subjects().of if data.splits else {}
    for number, split in enumerate(data.splits):
        sides = [{own[name] for name in part if name in own} for part in (split.train, split.val)]
        both = sorted(subject for subject in sides[0] & sides[1] if subject not in by_name)
        if both:
            text = f"in fold {number} images of {len(both)} subjects both train and judge, such as those of {both[0]}"
            whole.add("subject", text)
        for name in sorted(set(split.train) & set(split.val) & set(by_name)):
            by_name[name].add("leak", f"in fold {number} the case both trains and judges")
        for name in sorted({*split.train, *split.val} - set(by_name)):
            whole.add("split", f"fold {number} names the case {name!r}, which does not exist", "the name is left out")


def _spacings(looks: Sequence[Look], whole: Look) -> None:
    steps = [look.image.spacing for look in looks if look.image is not None and look.image.spaced]
    if len({len(step) for step in steps}) != 1:
        return
    low, high = np.min(steps, axis=0), np.max(steps, axis=0)
    if (high / low).max() > SPACING_RATIO:
        axis = int((high / low).argmax())
        text = f"the spacing along axis {axis} goes from {low[axis]:g} to {high[axis]:g} mm; training resamples"
        whole.add("spacing", text)


def _facts(data: SegmentData, looks: Sequence[Look], voxels: Counter[int]) -> dict[str, Any]:
    seen = [look for look in looks if look.space]
    spaced = [look.image.spacing for look in seen if look.image is not None and look.image.spaced]
    names = {value: name for name, value in (data.declared or {}).items()}
    total = sum(voxels.values()) or 1
    same = len({len(look.space) for look in seen}) == 1
    facts: dict[str, Any] = {
        "layout": data.layout,
        "annotated": len(data.cases),
        "without mask": len(data.unlabelled),
        "axes": len(seen[0].space) if seen else 0,
        "channels": Counter(look.channels for look in seen).most_common(1)[0][0] if seen else 0,
        "classes": {names.get(value, str(value)): round(count / total, 6) for value, count in sorted(voxels.items())},
    }
    if seen and same:
        shapes = np.array([look.space for look in seen])
        facts["shape"] = {"least": shapes.min(0).tolist(), "median": np.median(shapes, 0).astype(int).tolist()}
        facts["shape"]["most"] = shapes.max(0).tolist()
    if spaced and len({len(step) for step in spaced}) == 1:
        facts["spacing mm"] = [round(float(step), 4) for step in np.median(spaced, axis=0)]
    lying = Counter(axes_of(look.image) for look in seen if look.image is not None and look.image.affine is not None)
    if lying:
        facts["axes run"] = dict(lying.most_common())
    return facts
