"""Find what is wrong with a folder of walks."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fewer.core.display import Told, counted
from fewer.core.errors import FewerError
from fewer.core.progress import Progress, Silent
from fewer.tasks.findings import Finding, finding_lines
from fewer.tasks.gait.data.dataset import GaitData, open_data
from fewer.tasks.gait.data.layout import idle, unread
from fewer.tasks.gait.data.silhouettes import is_inverted
from fewer.tasks.gait.data.video import mixed_rates
from fewer.tasks.gait.protocols.casia_b import CasiaB
from fewer.tasks.gait.protocols.oumvlp import OuMvlp
from fewer.tasks.gait.protocols.ranked import Gait3D
from fewer.tasks.gait.protocols.records import Walk, Walks

__all__ = ["CHECKS", "LEFT_OUT", "WalkCheckup", "checkup", "empty_frames", "look_at", "missing_probes"]

CHECKS = {
    "unreadable": ("error", "a sequence cannot be read"),
    "one-person": ("error", "there is one person only"),
    "no-judge": ("error", "nobody judges: all persons train"),
    "no-gallery": ("error", "a person that judges has no gallery sequence"),
    "order": ("warning", "frames are not in their order"),
    "empty": ("warning", "frames are empty"),
    "inverted": ("warning", "the background is bright and the person is dark"),
    "two": ("warning", "two people, or pieces of one, stand in the frames"),
    "short": ("warning", "a sequence is short: less than a step is in it"),
    "name": ("error", "a name is no valid UTF-8, which no text file can hold"),
    "nothing": ("warning", "a person's folder holds no sequence"),
    "views": ("warning", "a person lacks views that others have"),
    "rate": ("warning", "frame rates differ"),
    "duplicate": ("warning", "two sequences are the same"),
    "layout": ("warning", "files lie where no sequence is looked for"),
    "partition": ("warning", "the partition file names a person that is not there"),
}
"""Every check: how bad it is, and what it means."""

LEFT_OUT = ("unreadable", "duplicate")
"""Findings for which a repaired copy lacks the sequence."""

SHORT = 15
_EMPTY = 0.01
_DROPPED = "the sequence is left out"
_PIECE = 0.15
_LOOKED, _ORDERS, _BETTER = 240, 100, 2.0
"""Frames whose order is looked at, orders that are drawn, and deviations by which the order should be better."""


@dataclass(frozen=True, repr=False)
class WalkCheckup(Told):
    """What a folder of walks is, and what is wrong with it.

    Attributes
    ----------
    data
        As it was listed.
    findings
        Errors first.
    facts
        Persons, sequences, frames, kinds, views.
    """

    data: GaitData
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
        told = [
            f"{facts['people']} persons, {facts['sequences']} sequences of {facts['shortest']} to {facts['longest']} "
            f"frames; {facts['train']} persons train, {facts['test']} judge",
            f"kinds {', '.join(facts['kinds'])}; views {', '.join(facts['views'])}",
        ]
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


def empty_frames(frames: np.ndarray) -> np.ndarray:
    """Which frames hold nobody.

    Examples
    --------
    >>> empty_frames(np.zeros((2, 64, 64), np.uint8)).tolist()
    [True, True]
    """
    return (frames > 127).mean((1, 2)) < _EMPTY


def look_at(frames: np.ndarray, name: str) -> list[Finding]:
    """What is wrong with one sequence of silhouettes uint8 (frames, 64, 64).

    Examples
    --------
    >>> [finding.check for finding in look_at(np.zeros((3, 64, 64), np.uint8), "a")]
    ['short', 'unreadable']
    """
    found: list[Finding] = []

    def note(check: str, text: str, fix: str = "") -> None:
        found.append(Finding(check, CHECKS[check][0], name, text, fix))

    if len(frames) < SHORT:
        note("short", f"{counted(len(frames), 'frame')}; {SHORT} or more hold a step at 25 frames a second")
    on = frames > 127
    empty = empty_frames(frames)
    if empty.all():
        found.append(Finding("unreadable", CHECKS["unreadable"][0], name, "all frames are empty", _DROPPED))
    elif empty.any():
        note("empty", f"{int(empty.sum())} of {len(frames)} frames", "they are left out")
    seen = on[~empty]
    apart = np.array([_pieces(frame) for frame in seen])
    if is_inverted(frames[~empty]):
        note("inverted", f"{100 * seen.mean():.0f} % of the pixels are bright; invert the masks")
    elif len(seen) and apart.mean() > 0.3:
        note("two", f"{int(apart.sum())} of {len(frames)} frames have two large pieces side by side")
    if len(seen) >= SHORT and _out_of_order(seen):
        note("order", "the next frame is no more alike than the fourth next; were they sorted as text?")
    return found


def _out_of_order(seen: np.ndarray) -> bool:
    """Whether frames (frames, height, width) follow each other no better than in an order that was drawn.

    Of a walk, the next frame is much more alike than the one four later. From the front little moves but the edges of
    the silhouette, so what counts is how much better the order is than others of the same frames.
    """
    values = seen[:_LOOKED].reshape(len(seen[:_LOOKED]), -1).astype(np.float32)
    sizes = values.sum(1)
    apart = sizes[:, None] + sizes - 2 * values @ values.T  # pixels that differ
    near, far = np.diag(apart, 1).mean(), np.diag(apart, 4).mean()
    if far <= 0.002 * values.shape[1] or near <= 0.85 * far:
        return False
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(values)) for _ in range(_ORDERS)]
    drawn = np.array([apart[order[:-1], order[1:]].mean() for order in orders])
    return bool(near > drawn.mean() - _BETTER * drawn.std())


def _pieces(frame: np.ndarray) -> bool:
    """Whether the upper half falls into two large pieces side by side."""
    mass = frame[: len(frame) // 2].sum(0)
    filled = np.flatnonzero(mass)
    if not len(filled):
        return False
    gaps = np.flatnonzero(np.diff(filled) > 3)
    return any(min(mass[: filled[g] + 1].sum(), mass[filled[g + 1] :].sum()) > _PIECE * mass.sum() for g in gaps)


def checkup(data: GaitData | str | Path, *, progress: Progress | None = None) -> WalkCheckup:
    """Look at every sequence.

    Raises
    ------
    FewerError
        When the folder holds no sequence.
    """
    data = open_data(data)
    findings: list[Finding] = []
    lengths: list[int] = []
    hashes: dict[bytes, list[Walk]] = {}
    with (progress or Silent()).stage("look at sequences", len(data)) as stage:
        for walk in data.walks:
            try:
                frames = data.frames(walk)
            except FewerError as error:
                findings.append(Finding("unreadable", "error", str(walk), str(error), _DROPPED))
            else:
                lengths.append(len(frames))
                findings += look_at(frames, str(walk))
                hashes.setdefault(hashlib.sha256(frames.tobytes()).digest(), []).append(walk)
            stage.advance(1, str(walk))
    findings += _twice(hashes.values()) + _whole(data)
    findings += [Finding("name", "error", name, "rename the folder") for name in _unspeakable(data)]
    order = list(CHECKS)
    findings.sort(key=lambda f: (f.level != "error", order.index(f.check)))
    facts = {
        "people": len(data.people),
        "sequences": len(data),
        "shortest": min(lengths, default=0),
        "longest": max(lengths, default=0),
        "train": len({w.person for w in data.part("train")}),
        "test": len({w.person for w in data.part("test")}),
        "kinds": sorted({w.kind for w in data.walks}),
        "views": sorted({w.view for w in data.walks}),
    }
    return WalkCheckup(data, tuple(findings), facts)


def _twice(same: Iterable[list[Walk]]) -> list[Finding]:
    """Sequences that are equal; of two persons, nobody can say whose they are."""
    found = []
    for first, *others in same:
        if {walk.person for walk in others} - {first.person}:
            for walk in (first, *others):
                twin = next(other for other in (first, *others) if other.person != walk.person)
                found.append(
                    Finding("duplicate", "warning", str(walk), f"the same as {twin}, another person", _DROPPED)
                )
        else:
            found += [Finding("duplicate", "warning", str(w), f"the same as {first}", _DROPPED) for w in others]
    return found


def _unspeakable(data: GaitData) -> list[str]:
    """Sequences with bytes in their names that are no text."""
    return [str(walk) for walk in data.walks if any("\ud800" <= letter <= "\udfff" for letter in str(walk))]


def _layout(data: GaitData) -> list[Finding]:
    """Files that are not read: at another depth, or beside the one file of a sequence that is."""
    lost, beside = unread(data.root, data.places)
    told = []
    if lost:
        told.append(f"{len(lost)} files, such as {lost[0]}, are not at PERSON/KIND/VIEW/FILE and are not read")
    if beside:
        told.append(f"{len(beside)} files, such as {beside[0]}, lie beside the one of their folder that is read")
    return [Finding("layout", CHECKS["layout"][0], "", text) for text in told]


def _whole(data: GaitData) -> list[Finding]:
    found = _layout(data)
    people, test = data.people, data.part("test")
    if len(people) < 2:
        found.append(Finding("one-person", "error", people[0], "there is nobody to tell apart from; add persons"))
    elif not test:
        found.append(Finding("no-judge", "error", "", "name persons in TEST_SET of a partition file"))
    found += [
        Finding("nothing", "warning", name, "add sequences, or remove the folder")
        for name in idle(data.root, data.places)
    ]
    if told := mixed_rates(data.places.values()):
        found.append(Finding("rate", "warning", "", f"{told}; networks that look at movement need one rate"))
    found += _galleries(test, data.partition.get("probes", ()))
    views: dict[str, set[str]] = {}
    for walk in data.walks:
        views.setdefault(walk.person, set()).add(walk.view)
    usual = Counter(view for some in views.values() for view in some)
    common = {view for view, count in usual.items() if count > 0.5 * len(people)}
    for person, some in views.items():
        if missing := sorted(common - some):
            found.append(Finding("views", "warning", person, f"no view {', '.join(missing)}"))
    named = {p for part in ("train", "test") for p in data.partition.get(part, ())}
    found += [
        Finding("partition", "warning", p, "it is in no folder", "it is named no longer")
        for p in sorted(named - set(people))
    ]
    found += [
        Finding("partition", "warning", p, "this probe is in no folder", "it is named no longer")
        for p in missing_probes(data, data.walks)
    ]
    return found


def missing_probes(data: GaitData, walks: Iterable[Walk]) -> list[str]:
    """Probes that the partition lists and that are none of some sequences."""
    there = {f"{walk.person}-{walk.kind}-{walk.view}" for walk in walks}
    return [name for name in data.partition.get("probes", ()) if name.replace("/", "-") not in there]


def _galleries(test: list[Walk], probes: Collection[str]) -> list[Finding]:
    """Persons that judge and cannot be found, since nothing of them is in the gallery of the protocol."""
    judges = [walk for walk in test if walk.person != "probe"]  # of GREW, whose probes have no names
    walks = Walks(judges, np.zeros((len(judges), 1)))
    casia, own = CasiaB(), OuMvlp()
    if not judges:
        return []
    if probes and (listed := Gait3D(probes).probes_in(walks)).any():
        asked = {walk.person for walk, probe in zip(judges, listed, strict=True) if probe}
        known = {walk.person for walk, probe in zip(judges, listed, strict=True) if not probe}
        lacking, told = asked - known, "all of its sequences are probes"
    elif casia.fits(walks):
        lacking = {w.person for w in judges} - {w.person for w in judges if casia.is_gallery(w)}
        told = "no sequence nm-01 to nm-04"
    elif own.fits(walks):
        lacking = {w.person for w in judges} - {w.person for w in judges if own.is_gallery(w)}
        told = "no sequence 01"
    else:
        counts = Counter(walk.person for walk in judges)
        lacking, told = {p for p, count in counts.items() if count < 2}, "one sequence only: nothing to find it by"
    return [Finding("no-gallery", "error", person, told) for person in sorted(lacking)]
