"""The networks among which an adaptation chose: what is known of each, as rows, as CSV and as a part of the page."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from fewer.reports.page import Section, Table

if TYPE_CHECKING:
    from fewer.tasks.segment.adapted import AdaptedRun

__all__ = ["member_rows", "members_csv", "members_section"]

SIGNS = {
    "trust": "trust",
    "mirror": "mirror images agree",
    "sizes": "sizes as in the source",
    "held-out source": "held-out source",
    "agreement": "curves agree",
    "agrees": "agrees with the kept one",
}
"""What is known without a target label, and how the page calls it."""


def member_rows(run: AdaptedRun) -> list[dict[str, Any]]:
    """Name, steps, whether it was kept, the signs, and the pooled Dice on the test folder where there is one."""
    found = []
    for member in run.adapted.members:
        row: dict[str, Any] = {"member": member.name, "steps": member.steps, "kept": member.kept}
        row |= {name: member.signs[name] for name in SIGNS if name in member.signs}
        scored = run.members.get(member.name)
        row["dice"] = scored.overall.dice_pooled if scored is not None else None
        found.append(row)
    return found


def members_csv(run: AdaptedRun) -> str:
    """:func:`member_rows` as a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = member_rows(run)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(
            "" if value is None else f"{value:.4f}" if isinstance(value, float) else value for value in row.values()
        )
    return text.getvalue()


def members_section(run: AdaptedRun) -> Section:
    """What each network had, what the choice preferred, and after the fact whether it was right."""
    rows = member_rows(run)
    shown = lambda value: "" if value is None else f"{value:.2f}"  # noqa: E731
    scored = any(row["dice"] is not None for row in rows)
    head = ["network", "steps", *SIGNS.values(), *(["Dice, test folder"] if scored else []), "kept"]
    cells = [
        [row["member"], str(row["steps"]), *(shown(row.get(name)) for name in SIGNS)]
        + ([f"{row['dice'] or 0:.3f}"] if scored else [])
        + ["kept" if row["kept"] else ""]
        for row in rows
    ]
    kept = next(row for row in rows if row["kept"])
    why = "because its trust is the highest"
    if kept["trust"] < max(row["trust"] for row in rows):
        why = (
            "because its trust is the highest of those that know other contrasts; source-only is not believed, since "
            "curves sees other structures in the target"
        )
    words = [
        f"{kept['member']} is kept, {why}. Trust is the geometric mean of the three columns after it. No label of the "
        "target takes part. Steps of a stage that networks share are counted in each of them."
    ]
    more = run.adapted.steps_after_choice
    if more:
        words.append(f"The table shows networks at the time of the choice; the kept one then went on for {more} steps.")
    if scored:
        best = max(rows, key=lambda row: row["dice"] or 0)
        right = "It was the best one" if best is kept else f"The best one was {best['member']}"
        words.append(f"{right} on the test folder, which was scored after the end.")
    return Section(name="members", title="Which network was kept", tables=[Table(head=head, rows=cells)], words=words)
