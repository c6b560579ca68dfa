"""Find what is wrong with a folder of scans, and repair what is safe to repair."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, atomic_write_text
from fewer.core.progress import Progress, Silent
from fewer.tasks.detect3d.boxes import points_in_boxes
from fewer.tasks.detect3d.dataset import DetectionData, open_data
from fewer.tasks.detect3d.frames import BYTE, Objects, has_bytes, have_place, in_bytes, intensities
from fewer.tasks.findings import Finding, Repaired, finding_lines, whole_copy
from fewer.tasks.folders import make_folder

__all__ = ["CHECKS", "ScanCheckup", "checkup", "repair"]

CHECKS = {
    "unreadable": ("error", "a scan cannot be read, or holds no point"),
    "label": ("error", "a label or its calibration cannot be read"),
    "nan": (
        "error",
        "a scan holds NaN, infinity or zeros; where that is a place, its beam met nothing, and verbs leave it out",
    ),
    "frame": ("error", "boxes stand in another frame than the points: nearly all of them are empty"),
    "size": ("error", "a box has a size that is not positive, or above 80 m"),
    "empty-box": ("warning", "a box holds no point"),
    "unknown-class": ("warning", "a class is rare: perhaps a slip of the pen"),
    "intensity": ("warning", "intensities are not within 0 and 1"),
    "columns": ("warning", "scans have another number of values a point than the others"),
    "unlabelled": ("warning", "scans have no label"),
    "duplicate": ("warning", "two scans have the same points"),
    "leak": ("error", "a scan trains and judges"),
}
"""Every check: how bad it is, and what it means."""

_LONGEST = 80.0
"""Metres: a tram of several cars is shorter, and sizes in other units than metres are mostly longer."""

_KNOWN = {"Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare"}


@dataclass(frozen=True, repr=False)
class ScanCheckup(Told):
    """What a folder of scans is, and what is wrong with it.

    Attributes
    ----------
    data
        As it was listed.
    findings
        Errors first.
    facts
        Scans, points, objects by class.
    """

    data: DetectionData
    findings: tuple[Finding, ...]
    facts: dict[str, Any]

    meanings: ClassVar[dict[str, tuple[str, str]]] = CHECKS
    """Level and meaning of each check."""

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return all(finding.level != "error" for finding in self.findings)

    def lines(self) -> list[str]:
        """What the folder is, then the findings by check."""
        facts = self.facts
        told = [f"{facts['scans']} scans ({self.data.layout}), {facts['labelled']} with a label"]
        if facts["points"]:
            values = " or ".join(facts["columns"])
            told.append(f"{min(facts['points'])} to {max(facts['points'])} points a scan, {values} values each")
        told.append("objects: " + (", ".join(f"{n} {c}" for n, c in facts["classes"].items()) or "none"))
        return [*told, *finding_lines(self.findings, CHECKS)]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "root": str(self.data.root),
            "healthy": self.healthy,
            "facts": self.facts,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def to_json(self) -> str:
        """Indented JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def checkup(data: DetectionData | str | Path, *, progress: Progress | None = None) -> ScanCheckup:
    """Look at every scan and label.

    Raises
    ------
    FewerError
        When the folder holds no scan.
    """
    data = data if isinstance(data, DetectionData) else open_data(data)
    findings: list[Finding] = []
    counts: Counter[str] = Counter()
    points: list[int] = []
    hashes: dict[int, str] = {}
    bright: list[tuple[float, float]] = []
    said: list[bool] = []
    columns: dict[str, int] = {}
    empty = boxes = labelled = 0
    with (progress or Silent()).stage("look at scans", len(data)) as stage:
        for name in data.names:
            some, objects, scan = _look(data, name)
            findings += some
            labelled += data.label_file(name) is not None
            if scan is not None:
                points.append(len(scan))
                columns[name] = scan.shape[1]
                if (seen := intensities(scan)) is not None:
                    bright.append(seen)
                    said.append(bool(has_bytes(scan)))
                same = hashes.setdefault(hash(scan.tobytes()), name)
                if same != name:
                    findings.append(
                        _finding("duplicate", name, f"has the points of {same}", "the later one is left out")
                    )
            if objects is not None:
                counts.update(objects.classes)
                if scan is not None and len(objects):
                    inside = points_in_boxes(scan, objects.boxes, 0.1).sum(1)
                    boxes, empty = boxes + len(objects), empty + int((inside == 0).sum())
                    hollow = np.flatnonzero(inside == 0)
                    for at in hollow[:1]:
                        text = f"{len(hollow)} of {len(objects)} boxes hold no point, such as a {objects.classes[at]}"
                        findings.append(_finding("empty-box", name, text, "boxes without a point are dropped"))
            stage.advance(1, name)
    findings += [*_of_the_set(data, counts, boxes, empty, labelled), *_odd_columns(columns)]
    findings.sort(key=lambda one: (one.level != "error", list(CHECKS).index(one.check)))
    facts = {"scans": len(data), "labelled": labelled, "points": points, "classes": dict(counts.most_common())}
    facts["columns"] = {str(values): count for values, count in Counter(columns.values()).most_common()}
    facts["intensity"] = [min((low for low, _ in bright), default=0.0), max((top for _, top in bright), default=0.0)]
    facts["bytes"] = in_bytes(said)
    return ScanCheckup(data, tuple(findings), facts)


def _finding(check: str, case: str, text: str, fix: str = "") -> Finding:
    return Finding(check, CHECKS[check][0], case, text, fix)


def _look(data: DetectionData, name: str) -> tuple[list[Finding], Objects | None, np.ndarray | None]:
    findings, scan, objects = [], None, None
    try:
        scan = data.raw(name)
        if not _good(scan).any():
            scan = None
            raise FewerError(f"{data.file(name)} holds no point with a place and an intensity")
    except FewerError as error:
        findings.append(_finding("unreadable", name, str(error), "the scan is left out"))
    try:
        objects = data.objects(name) if data.label_file(name) is not None else None
    except FewerError as error:
        findings.append(_finding("label", name, str(error), "the scan is left out"))
    if scan is not None:
        scan, some = _finite(scan, name)
        findings += some
        if len(scan) and (scan[:, 3].min() < -0.01 or scan[:, 3].max() > 1.01):
            low, high = float(scan[:, 3].min()), float(scan[:, 3].max())
            fix = "where most scans have such, all verbs divide by 255" if low >= 0 and high <= BYTE else ""
            findings.append(_finding("intensity", name, f"intensities from {low:g} to {high:g}", fix))
    if objects is not None and len(objects):
        sizes = objects.boxes[:, 3:6]
        wrong = ((sizes <= 0) | (sizes > _LONGEST)).any(1)
        if wrong.any():
            findings.append(
                _finding("size", name, f"{int(wrong.sum())} boxes have an impossible size", "they are dropped")
            )
    return findings, objects, scan


def _good(scan: np.ndarray) -> np.ndarray:
    """Points that every verb can use."""
    return np.isfinite(scan).all(1) & have_place(scan)


def _finite(scan: np.ndarray, name: str) -> tuple[np.ndarray, list[Finding]]:
    """A scan without what is no number, and what is said about that."""
    good, placed = _good(scan), have_place(scan)
    findings = []
    if (placed & ~good).any():
        count = int((placed & ~good).sum())
        text = f"{count} points have a value beside their place that is NaN or infinity"
        findings.append(_finding("nan", name, text, "they are dropped"))
    if not placed.all():
        text = f"{int((~placed).sum())} points have no place (NaN, infinity or zeros): their beams met nothing"
        findings.append(
            Finding("nan", "warning", name, text, "they are dropped, as every verb does when it reads them")
        )
    return scan[good], findings


def _odd_columns(columns: dict[str, int]) -> list[Finding]:
    """Scans that hold another number of values a point than most."""
    usual = Counter(columns.values()).most_common(1)
    return [
        _finding("columns", name, f"{count} values a point, where most scans have {usual[0][0]}")
        for name, count in columns.items()
        if count != usual[0][0]
    ]


def _of_the_set(data: DetectionData, counts: Counter[str], boxes: int, empty: int, labelled: int) -> list[Finding]:
    findings = []
    if boxes >= 5 and empty > 0.8 * boxes:
        text = f"{empty} of {boxes} boxes hold no point: are they in the camera's frame, or is z the underside?"
        findings.append(_finding("frame", "", text))
    total = sum(counts.values())
    for name, count in counts.items():
        if name not in _KNOWN and count < 0.01 * total:
            findings.append(_finding("unknown-class", name, f"{count} of {total} objects"))
    if labelled < len(data):
        findings.append(_finding("unlabelled", "", f"{len(data) - labelled} of {len(data)} scans"))
    try:
        both = set(data.listed("train")) & set(data.listed("val"))
        if both:
            findings.append(_finding("leak", min(both), f"{len(both)} scans are in train.txt and in val.txt"))
    except FewerError as error:
        findings.append(_finding("unreadable", "", str(error)))
    return findings


def repair(found: ScanCheckup, out: str | Path, *, progress: Progress | None = None) -> Repaired:
    """Write a copy without points that are not finite, boxes without points or of impossible size, and broken scans.

    Intensities from 0 to 255 are brought to 0 to 1, which detectors expect.

    The copy has OpenPCDet's custom layout, which needs no camera.

    Raises
    ------
    FewerError
        When ``out`` is there already, or nothing is left.
    """
    data, out = found.data, Path(out)
    scale = BYTE if found.facts["bytes"] else 1.0
    bad = {f.case: f.check for f in found.findings if f.check in ("unreadable", "label", "duplicate") and f.case}
    changed, kept = [], [name for name in data.names if name not in bad]
    if not kept:
        raise FewerError(f"no scan of {data.root} can be used")
    with whole_copy(out) as place:
        for name in kept:
            changed += _copy(data, name, place, scale)
        for part in ("train", "val"):
            names = [name for name in _listed(data, part) if name in set(kept)]
            if names:
                make_folder(place / "ImageSets")
                atomic_write_text(place / "ImageSets" / f"{part}.txt", "".join(f"{name}\n" for name in names))
        left_out = tuple(f"{name} ({check})" for name, check in bad.items())
        return Repaired(out, len(kept), tuple(changed), left_out, unit="scans").note(place)


def _listed(data: DetectionData, part: str) -> Sequence[str]:
    try:
        return data.listed(part)
    except FewerError:
        return ()


def _copy(data: DetectionData, name: str, place: Path, scale: float) -> list[str]:
    import io

    from fewer.tasks.detect3d.layouts import custom_label_text

    scan, changed = data.raw(name), []
    good = _good(scan)
    if not good.all():
        changed.append(
            f"{name}: dropped {int((~good).sum())} points without a place, or with a value that is no number"
        )
    if scale != 1.0:
        scan[:, 3] /= scale
        changed.append(f"{name}: intensities are divided by {scale:g}")
    text = io.BytesIO()
    np.save(text, scan[good], allow_pickle=False)
    atomic_write_bytes(make_folder(place / "points") / f"{name}.npy", text.getvalue())
    if data.label_file(name) is not None:
        objects = data.objects(name)
        sizes = objects.boxes[:, 3:6]
        fine = ((sizes > 0) & (sizes <= _LONGEST)).all(1) & points_in_boxes(scan[good], objects.boxes, 0.1).any(1)
        if not fine.all():
            changed.append(f"{name}: dropped {int((~fine).sum())} boxes without a point or of impossible size")
        atomic_write_text(make_folder(place / "labels") / f"{name}.txt", custom_label_text(objects.take(fine)))
    return changed
