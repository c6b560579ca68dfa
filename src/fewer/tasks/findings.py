"""What is wrong with a data set, in words that every task's doctor shares."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text, explain_os_error

__all__ = ["Finding", "Repaired", "finding_lines", "whole_copy"]

SHOWN = 8
"""Findings that are listed per check; all of them with --json."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    check
        Name of what was looked for.
    level
        ``error`` or ``warning``.
    case
        Name, or empty for the whole set.
    text
        One sentence.
    fix
        What ``--fix`` does about it; empty if a person must.
    """

    check: str
    level: str
    case: str
    text: str
    fix: str = ""


@dataclass(frozen=True, repr=False)
class Repaired(Told):
    """What ``fewer doctor --fix`` did.

    Attributes
    ----------
    folder
        The copy.
    kept
        Cases in it.
    changed, left_out
        One line each.
    unit
        What the cases are called.

    Examples
    --------
    >>> Repaired(Path("copy"), 2, (), ("cat: it cannot be read",)).lines()
    ['wrote copy with 2 cases:', '  left out: cat: it cannot be read']
    """

    folder: Path
    kept: int
    changed: tuple[str, ...]
    left_out: tuple[str, ...]
    unit: str = "cases"

    def lines(self) -> list[str]:
        """Where the copy is, and what was changed."""
        told = [*self.changed, *(f"left out: {line}" for line in self.left_out)] or ["nothing had to be changed"]
        return [f"wrote {self.folder} with {self.kept} {self.unit}:", *(f"  {line}" for line in told)]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; bytes of names that are no UTF-8 are spelt out, since no reader of JSON takes them."""
        changed, left_out = ([_spelt(line) for line in lines] for lines in (self.changed, self.left_out))
        return {"folder": _spelt(str(self.folder)), "kept": self.kept, "changed": changed, "left_out": left_out}

    def note(self, folder: Path) -> Repaired:
        """Write what was done into ``changes.json`` of a folder; gives the same object."""
        atomic_write_text(folder / "changes.json", json.dumps(self.to_dict(), indent=1) + "\n")
        return self


def _spelt(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def whole_copy(out: Path) -> Iterator[Path]:
    """A folder to fill, which stands at ``out`` once all is in it; nothing stays of one that was not finished.

    Raises
    ------
    FewerError
        When ``out`` is there already, or nothing can be written.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "copy"
    >>> with whole_copy(out) as place:
    ...     _ = (place / "a.txt").write_text("a")
    >>> [path.name for path in out.iterdir()]
    ['a.txt']
    """
    if out.exists():
        raise FewerError(f"{out} exists already; give a new folder for the repaired copy with --out")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(out)
    except OSError as error:
        raise explain_os_error(error, out) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def finding_lines(findings: Sequence[Finding], checks: Mapping[str, tuple[str, str]]) -> list[str]:
    """Findings by check, so many of each.

    Parameters
    ----------
    findings
        In the order in which checks are told.
    checks
        Level and meaning of each check.

    Examples
    --------
    >>> finding_lines([Finding("tiny", "warning", "cat", "3 images")], {"tiny": ("warning", "a class is tiny")})
    ['', 'warning: a class is tiny (tiny)', '  cat: 3 images']
    >>> finding_lines([], {})
    ['nothing is wrong']
    """
    lines = [] if findings else ["nothing is wrong"]
    by_check: dict[str, list[Finding]] = {}
    for finding in findings:
        by_check.setdefault(finding.check, []).append(finding)
    for check, some in by_check.items():
        lines += ["", f"{some[0].level}: {checks[check][1]} ({check})"]
        for one in some[:SHOWN]:
            fix = f"; --fix: {one.fix}" if one.fix else ""
            lines.append(f"  {one.case + ': ' if one.case else ''}{one.text}{fix}")
        if len(some) > SHOWN:
            lines.append(f"  and {len(some) - SHOWN} more; see all with --json")
    return lines
