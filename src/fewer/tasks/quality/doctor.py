"""Look at conversations before a tuning: what is missing, unreadable, one-sided or asked twice."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.display import Told
from fewer.core.progress import Progress, Silent
from fewer.data.decode import check_header
from fewer.tasks.quality.records import Record, read_records

__all__ = ["Examined", "checkup"]


@dataclass(frozen=True, repr=False)
class Examined(Told):
    """What was found.

    Attributes
    ----------
    records, images
        Counts.
    errors
        What makes the data unusable.
    warnings
        What should be looked at.
    """

    records: int
    images: int
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def lines(self) -> list[str]:
        """All findings."""
        told = [
            f"{self.records} conversations about {self.images} images: " + ("usable" if self.healthy else "NOT usable")
        ]
        return told + [f"error: {text}" for text in self.errors] + [f"warning: {text}" for text in self.warnings]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        facts = {"records": self.records, "images": self.images, "healthy": self.healthy}
        return {**facts, "errors": list(self.errors), "warnings": list(self.warnings)}


def checkup(data: str | Path, *, images: str | Path | None = None, progress: Progress | None = None) -> Examined:
    """Find what is wrong with a file of conversations whose images are beside it, or in a folder of their own."""
    unusable: list[str] = []
    records = read_records(data, unusable)
    folder = Path(images) if images is not None else Path(data).parent
    names = sorted({name for record in records for name in record.images})
    errors, warnings = [], []
    if unusable:
        errors.append(f"{len(unusable)} conversations cannot be used (--leave-out tunes on the others): {unusable[0]}")
    with (progress or Silent()).stage("look", len(names)) as stage:
        broken = []
        for name in names:
            try:
                check_header(folder / name)
            except Exception as error:  # a broken file can make a decoder raise anything
                broken.append(f"{name} ({type(error).__name__})")
            stage.advance(1)
    if names and not any(os.path.lexists(folder / name) for name in names):
        errors.append(f"none of {len(names)} images is in {folder}; give their folder: --images FOLDER")
    elif broken:
        errors.append(f"{len(broken)} images cannot be read, such as {', '.join(broken[:3])}")
    answers = Counter(r.turns[0][1].strip().lower().rstrip(".") for r in records if len(r.turns) == 1)
    yes, no = answers["yes"], answers["no"]
    if yes + no >= 20 and not 0.4 <= yes / (yes + no) <= 0.6:
        warnings.append(f"{yes} answers are yes and {no} no: a model learns the more frequent one; balance them")
    letters = {letter: answers[letter.lower()] for letter in "ABCD"}
    total = sum(letters.values())
    if total >= 40 and max(letters.values()) > 0.6 * total:
        warnings.append(f"one letter is the answer of {max(letters.values())} of {total} choices; shuffle the options")
    twice = sum(count - 1 for count in Counter(_key(r) for r in records).values())
    if twice:
        warnings.append(f"{twice} conversations come more than once")
    return Examined(len(records), len(names), tuple(errors), tuple(warnings))


def _key(record: Record) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    return record.images, record.turns
