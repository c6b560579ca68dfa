"""The page of a doctor: what a data set is, and what is wrong with it, also when that is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.core.files import as_path, atomic_write_text, explain_os_error
from fewer.reports.numbers import significant
from fewer.reports.page import Page, Section, Table, Tile
from fewer.tasks.findings import Finding
from fewer.tasks.task import Checked

__all__ = ["check_page_path", "checkup_page", "write_checkup_page"]

ROWS = 200
"""Findings of one check that the page lists."""


def check_page_path(path: str | Path, overwrite: bool) -> Path:
    """Where a page is to be written.

    Raises
    ------
    FewerError
        When it is no HTML file, or is there already.
    """
    place = as_path(path)
    if place.suffix.lower() not in (".html", ".htm"):
        raise FewerError(f"--page names an HTML file, such as {place.name or 'checked'}.html; got {path}")
    for there in (place, place.with_suffix(".json")):
        if there.exists() and not overwrite:
            raise FewerError(f"{there} exists already; give another --page, or --overwrite")
    return place


def write_checkup_page(found: Checked, data: str | Path, path: Path, command: str = "") -> Path:
    """Write :func:`checkup_page` to a file, and the same as JSON beside it.

    Raises
    ------
    FewerError
        When it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, path.parent, "make the folder") from None
    page = checkup_page(found, data, command)
    atomic_write_text(path.with_suffix(".json"), page.to_json())
    return atomic_write_text(path, page.to_html())


def checkup_page(found: Checked, data: str | Path, command: str = "") -> Page:
    """The page.

    Parameters
    ----------
    found
        Of a task's checkup. Where it has ``findings``, each is told with its case and what ``--fix`` does about it, and
        ``meanings`` says what a check looks for.
    data
        The data set.
    command
        The command line.

    Examples
    --------
    >>> class Fine:
    ...     healthy = True
    ...     def lines(self):
    ...         return ["12 images in 3 classes", "nothing is wrong"]
    ...     def to_dict(self):
    ...         return {"images": 12}
    >>> page = checkup_page(Fine(), "photos/")
    >>> page.title, page.badge, page.sentence
    ('photos', 'Nothing is wrong', '12 images in 3 classes')
    """
    findings = _findings(found)
    errors = sum(one.level == "error" for one in findings)
    badge = "Nothing is wrong"
    if findings:
        badge = f"{errors} errors" if errors > 1 else "1 error" if errors else "No error, but look at the warnings"
    tiles = [
        Tile(name="Errors", value=str(errors), state="bad" if errors else "good", note="training would go wrong"),
        Tile(name="Warnings", value=str(len(findings) - errors), note="for a person to look at"),
    ]
    values = found.to_dict()
    facts = values.get("facts") or {k: v for k, v in values.items() if k not in ("root", "healthy", "findings")}
    sections = [Section(name="findings", title="What is wrong", tables=_tables(found, findings))] if findings else []
    plain = {str(name): _plain(value) for name, value in facts.items() if not isinstance(value, list) or value}
    sections.append(Section(name="facts", title="What the data set is", facts={"Facts": plain}))
    if command:
        sections.append(Section(name="reproduce", title="How to get this page again", command=command))
    return Page(
        title=Path(data).name or str(data),
        badge=badge,
        good=found.healthy,
        sentence=next(iter(found.lines()), ""),
        tiles=tiles,
        sections=sections,
    )


def _findings(found: Checked) -> Sequence[Finding]:
    known = getattr(found, "findings", None)
    if known is not None:
        return tuple(known)
    values = found.to_dict()
    levels = (("error", values.get("errors", ())), ("warning", values.get("warnings", ())))
    return [Finding("", level, "", str(text)) for level, texts in levels for text in texts]


def _tables(found: Checked, findings: Sequence[Finding]) -> list[Table]:
    meanings: Mapping[str, tuple[str, str]] = getattr(found, "meanings", {})
    by_check: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        by_check.setdefault((one.level, one.check), []).append(one)
    tables = []
    for (level, check), some in sorted(by_check.items(), key=lambda entry: entry[0][0] != "error"):
        meaning = meanings.get(check, ("", check))[1]
        rows = [[one.case or "the whole set", one.text, one.fix or "for a person"] for one in some[:ROWS]]
        if len(some) > ROWS:
            rows.append([f"and {len(some) - ROWS} more", "see all with --json", ""])
        title = f"{level.capitalize()}: {meaning}" if meaning else level.capitalize() + "s"
        tables.append(Table(title=title, head=["where", "what", "what --fix does"], rows=rows))
    return tables


def _plain(value: Any) -> str | int | float | bool | None:
    """A fact in one cell."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_plain(one)}" for name, one in list(value.items())[:40]) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(_plain(one)) for one in value[:40]) + (", ..." if len(value) > 40 else "")
    if isinstance(value, float) and not isinstance(value, bool):
        return significant(value)
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
