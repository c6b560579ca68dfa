"""Find and name what is wrong with a labelled set of images, before it costs a training."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fewer.core.display import Told
from fewer.core.progress import Progress, Silent
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.readers import open_data
from fewer.tasks.findings import Finding, finding_lines

__all__ = ["CHECKS", "Checkup", "checkup"]

CHECKS = {
    "unreadable": ("error", "an image cannot be read"),
    "contradiction": ("error", "the same image has two classes"),
    "leak": ("error", "an image that trains is in the part for testing, too"),
    "one-class": ("error", "there is nothing to tell apart"),
    "unseen-class": ("error", "a class of the part for testing has no image that trains"),
    "duplicate": ("warning", "an image is there twice"),
    "tiny-class": ("warning", "a class has very few images"),
    "imbalance": ("warning", "the largest class is much larger than the smallest"),
    "mode": ("warning", "an image is grey where most have colours, or the other way round"),
    "size": ("warning", "an image is tiny beside the others"),
    "constant": ("warning", "an image has the same value everywhere"),
}
"""Every check: how bad it is, and what it means."""

FEW, RATIO = 5, 20
_SMALL = 1 / 8


@dataclass(frozen=True, repr=False)
class Checkup(Told):
    """The result: what the set is, and what is wrong with it.

    Attributes
    ----------
    data
        As it was listed.
    findings
        Errors first.
    facts
        ``format``, ``images``, ``classes`` (images of each), ``parts``, ``sizes``, ``modes``.
    """

    data: ClassifyData
    findings: tuple[Finding, ...]
    facts: dict[str, Any]

    meanings: ClassVar[dict[str, tuple[str, str]]] = CHECKS
    """Level and meaning of each check."""

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return all(finding.level != "error" for finding in self.findings)

    def lines(self) -> list[str]:
        """What the set is, then the findings by check, so many of each."""
        facts = self.facts
        counts = sorted(facts["classes"].values())
        told = f"{facts['images']} images in {len(counts)} classes, {facts['format']}"
        sizes = " to ".join(dict.fromkeys(facts["sizes"]))
        second = f"{counts[0]} to {counts[-1]} images a class, {sizes} pixels"
        if facts["parts"]:
            second += "; " + ", ".join(f"{part} {count}" for part, count in facts["parts"].items())
        return [told, second, *finding_lines(self.findings, CHECKS)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        findings = [asdict(finding) for finding in self.findings]
        return {"root": str(self.data.root), "healthy": self.healthy, "facts": self.facts, "findings": findings}


def checkup(data: ClassifyData | str | Path, *, progress: Progress | None = None) -> Checkup:
    """Look at every image of a labelled set.

    Raises
    ------
    FewerError
        When it is no labelled set at all.

    Examples
    --------
    >>> checkup("photos-by-class/").healthy  # doctest: +SKIP
    True
    """
    data = data if isinstance(data, ClassifyData) else open_data(data)
    found = [_finding("unreadable", name, reason) for name, reason in data.skipped]
    rows_of: dict[str, list[int]] = defaultdict(list)
    modes: dict[int, str] = {}
    sizes: dict[int, tuple[int, int]] = {}
    with (progress or Silent()).stage("look", len(data)) as stage:
        for row in range(len(data)):
            try:
                image = data.pictures[row]
                pixels = np.asarray(image)
            except Exception as error:  # a broken file can make a decoder raise anything
                found.append(_finding("unreadable", data.names[row], str(error) or type(error).__name__))
            else:
                modes[row], sizes[row] = ("colour" if image.mode == "RGB" else "grey"), image.size
                # of the pixels, not of the file: the same image may be stored twice in two ways
                rows_of[hashlib.sha256(pixels.tobytes() + repr(pixels.shape).encode()).hexdigest()].append(row)
                if pixels.size and (pixels == pixels.flat[0]).all():
                    found.append(_finding("constant", data.names[row], f"every value is {pixels.flat[0]}"))
            stage.advance(1)
    found += _alike(data, [rows for rows in rows_of.values() if len(rows) > 1])
    found += _classes(data)
    found += _odd(data, modes, sizes)
    found.sort(key=lambda finding: (finding.level != "error", list(CHECKS).index(finding.check)))
    parts = Counter(part for part in data.parts if part)
    areas = sorted(sizes.values(), key=lambda size: size[0] * size[1])
    facts = {
        "format": data.kind,
        "images": len(data),
        "classes": data.count(),
        "parts": dict(parts),
        "sizes": [f"{w} x {h}" for w, h in ((areas[0], areas[-1]) if areas else ())],
        "modes": dict(Counter(modes.values())),
    }
    return Checkup(data, tuple(found), facts)


def _finding(check: str, case: str, text: str) -> Finding:
    return Finding(check, CHECKS[check][0], case, text)


def _alike(data: ClassifyData, groups: list[list[int]]) -> list[Finding]:
    found = []
    for rows in groups:
        first, others = data.names[rows[0]], ", ".join(data.names[row] for row in rows[1:4])
        if len({int(data.labels[row]) for row in rows}) > 1:
            classes = sorted({data.classes[data.labels[row]] for row in rows})
            found.append(_finding("contradiction", first, f"the same as {others}; classes {', '.join(classes)}"))
        elif len({data.parts[row] for row in rows}) > 1:
            found.append(_finding("leak", first, f"the same as {others}"))
        else:
            found.append(_finding("duplicate", first, f"the same as {others}"))
    return found


def _classes(data: ClassifyData) -> list[Finding]:
    found, count = [], data.count()
    if len(data.classes) < 2:
        found.append(_finding("one-class", "", f"the only class is {''.join(data.classes)}"))
    for name, images in count.items():
        if images < FEW:
            found.append(_finding("tiny-class", name, f"{images} image{'s' if images != 1 else ''}"))
    most, least = max(count.values()), min(count.values())
    if most > RATIO * max(least, 1):
        found.append(_finding("imbalance", "", f"{most} images against {least}"))
    if data.has_parts:
        trained = data.count(data.rows("train"))
        tested = data.count(data.rows("test"))
        for name in data.classes:
            if tested[name] and not trained[name]:
                found.append(_finding("unseen-class", name, f"{tested[name]} images test, none trains"))
    return found


def _odd(data: ClassifyData, modes: dict[int, str], sizes: dict[int, tuple[int, int]]) -> list[Finding]:
    if not modes:
        return []
    found = []
    usual = Counter(modes.values()).most_common(1)[0][0]
    side = float(np.median([min(size) for size in sizes.values()]))
    for row, mode in modes.items():
        if mode != usual:
            found.append(_finding("mode", data.names[row], f"{mode}; most are {usual}"))
        if min(sizes[row]) < _SMALL * side:
            found.append(_finding("size", data.names[row], f"{sizes[row][0]} x {sizes[row][1]} pixels"))
    return found
