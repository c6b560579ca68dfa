"""What a result looks like in a terminal: tables on the standard output, readable from 60 columns on."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fewer.cli.terminal import in_json, safe_console
from fewer.reports.numbers import count, measure, percent, quantity, significant, times

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from fewer.core.plan import Plan
    from fewer.reports.compression.data import Quality, RunReport
    from fewer.reports.compression.parts import Runtimes

__all__ = [
    "as_json", "console", "match_rows", "plan_table", "say", "say_address", "say_would", "shorten", "times_box",
    "verdict_box",
]  # fmt: skip

BAR = 20
WIDE, NARROW = 140, 60


def console() -> Console:
    """The standard output; as wide as the terminal, and 120 columns where there is none."""
    width = max(NARROW, shutil.get_terminal_size((120, 24)).columns)
    return safe_console(width=width, highlight=False, soft_wrap=False)


def say(*what: RenderableType) -> None:
    """Print tables or text."""
    screen = console()
    for part in what:
        screen.print(part)


def as_json(value: Any) -> None:
    """Print one JSON value, nothing else."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    sys.stdout.write(in_json(text) + "\n")


def say_would(lines: Sequence[str], in_json: bool, **facts: Any) -> int:
    """Say what a dry run would do, in words or as JSON with some facts beside; that went well: exit code 0."""
    if in_json:
        as_json({"dry_run": True, **facts, "would": list(lines)})
    else:
        print("dry run, nothing is written:", *lines, sep="\n  ")
    return 0


def say_address(host: str, port: int, note: str, in_json: bool) -> None:
    """Say where a server listens, at once: it runs until somebody stops it."""
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    if in_json:
        as_json({"url": place})
    else:
        print(f"{place}  ({note})")
    sys.stdout.flush()


def shorten(text: str, width: int) -> str:
    """Cut the middle out of a long name: its ends tell layers apart.

    Examples
    --------
    >>> shorten("encoder.blocks.11.attn.qkv", 16)
    'encode….attn.qkv'
    """
    if len(text) <= width:
        return text
    tail = width // 2 + 1
    head = max(width - 1 - tail, 0)
    return text[:head] + "…" + text[len(text) - tail :]


def _table(*columns: tuple[str, str], **options: Any) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", **options)
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    return table


def match_rows(rows: Sequence[Mapping[str, str]], width: int | None = None) -> RenderableType:
    """The table of units: what can be cut, what is left alone, and why.

    Parameters
    ----------
    rows
        ``layer kind shape positions macs status``, and perhaps ``channels``, as :func:`fewer.verbs.match_table` gives
        them.
    width
        Of the terminal.
    """
    from rich.console import Group
    from rich.text import Text

    width = width or console().width
    matched = [row for row in rows if row["status"] == "matched"]
    skipped = [row for row in rows if row["status"] != "matched"]
    roomy = width >= 72
    numbers = ("shape", "positions", "MACs") if roomy else ("shape", "MACs")
    table = _table(("layer", "left"), ("kind", "left"), *((name, "right") for name in numbers))
    for row in matched:
        name = shorten(row["layer"], max(18, width - (56 if roomy else 42)))
        cells = [name, shorten(row["kind"], 17), row["shape"], row["positions"], _si(row["macs"])]
        table.add_row(*(cells if roomy else cells[:3] + cells[4:]))
    parts: list[RenderableType] = [table]
    if any("channels" in row for row in matched):
        groups = _table(("layer", "left"))
        groups.add_column("input channels that can be removed", overflow="fold")
        for row in matched:
            groups.add_row(shorten(row["layer"], 32), row.get("channels", ""))
        parts.append(groups)
    if skipped:
        left = _table(("left alone", "left"), ("kind", "left"))
        left.add_column("why", overflow="fold")
        for row in skipped:
            left.add_row(shorten(row["layer"], 32), shorten(row["kind"], 24), row["status"].removeprefix("skipped: "))
        parts.append(left)
    told = (
        f"{_count(len(matched), 'layer')} can be cut, {len(skipped)} {'is' if len(skipped) == 1 else 'are'} left alone"
    )
    return Group(*parts, Text(told))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _si(text: str) -> str:
    try:
        return count(float(text))
    except ValueError:
        return text


def _value_beside_dense(report: RunReport, quality: Quality) -> str:
    """A quality of the model; with labels, or where it is a time, beside that of the dense model."""
    from fewer.reports.compression.words import counted_words, interval_words

    told = counted_words(report, quality) or measure(quality.value, 3)
    if quality.labelled and quality.dense is not None:
        told += f", {interval_words(quality.interval)}" if quality.interval else ""
        dense = f"dense model {measure(quality.dense, 3)}"
        dense += f", {interval_words(quality.dense_interval)}" if quality.dense_interval else ""
        told += f" ({dense}; {quality.note})"
    elif not quality.higher_is_better and quality.dense:
        # a time that stands alone says nothing: beside it the best dense model, and what each of them runs in
        told += f" (dense model {measure(quality.dense, 3)}; {quality.note})"
    return told


def verdict_box(report: RunReport, folder: str, page: str) -> RenderableType:
    """The verdict after a run: budget, held-out distortion, ours against the baselines, and where the report is."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from fewer.reports.compression.words import (
        comparison_sentence,
        published_sentence,
        recovery_sentence,
        whose,
    )

    met = report.verdict.met
    colour = "green" if met else "red"
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for got in report.verdict.budgets:
        share = f" ({percent(got.reached / got.dense)} of {whose(got, report)})" if got.dense else ""
        facts.add_row(got.budget, f"{quantity(got.reached, got.unit)}{share}; limit {quantity(got.limit, got.unit)}")
    if report.verdict.distortion is not None:
        held = f" on {report.data.heldout} held-out images" if report.data and report.data.heldout else ""
        facts.add_row("distortion", f"{significant(report.verdict.distortion)}{held} (0 is the dense model's output)")
    if report.recovery:
        facts.add_row("recovery", recovery_sentence(report.recovery))
    for quality in report.verdict.quality:
        told = _value_beside_dense(report, quality)
        facts.add_row(quality.name, told)
    if report.model.artefact_bytes and report.model.source_bytes:
        facts.add_row(
            "on disk",
            f"{quantity(report.model.artefact_bytes, 'bytes')}, from {quantity(report.model.source_bytes, 'bytes')}",
        )
    if report.data and report.data.note:
        facts.add_row("images", report.data.note)  # how many, and what was made of a file
    if report.data and report.data.skipped:
        names = ", ".join(shorten(s.file, 40) for s in report.data.skipped[:3])
        more = f" and {len(report.data.skipped) - 3} more" if len(report.data.skipped) > 3 else ""
        facts.add_row("skipped", f"{_count(len(report.data.skipped), 'unreadable image')}: {names}{more}")
    told = "" if report.recovery else f"{comparison_sentence(report)} {published_sentence(report)}".strip()
    parts: list[RenderableType] = [Padding(Text(told, style="bold"), (0, 0, 1, 0)), facts] if told else [facts]
    if report.baselines:
        parts.append(_comparison(report))
    parts += [Text(f"{name} is missing: {reason}", "dim") for name, reason in report.missing.items()]
    where = Table.grid(padding=(0, 2))
    where.add_column(style="dim", no_wrap=True)
    where.add_column(overflow="fold")
    where.add_row("report", page)
    fast = ', runtime="auto"' if report.latency is not None else ""  # the files hold weights, and no packed kernels
    where.add_row("in Python", f'fewer.load("{folder}"{fast})')
    where.add_row("next", _next_steps(report, folder))
    parts.append(Padding(where, (1, 0, 0, 0)))
    title = Text(f" {report.model.name}: budget {'met' if met else 'NOT met'} ", style=f"bold {colour}")
    return Panel(Group(*parts), title=title, title_align="left", border_style=colour, width=min(console().width, 100))


def times_box(report: RunReport, found: Runtimes, folder: str) -> RenderableType:
    """A run that was planned for time beside the dense model in every runtime, the quickest first."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    width = console().width
    heading = f"{_count(found.batch, 'image')}, {_count(found.threads, 'thread')}"
    columns = [(heading, "left"), ("ms", "right"), ("faster", "right"), ("distortion", "right")]
    bars = 0 if width < 72 else BAR // 2 if width < 90 else BAR
    table = _table(*columns, *([("", "left")] if bars else []))
    rows = [row for row in found.rows if not row.label.endswith("in plain torch")]  # the zeros cost time there
    slowest = max((row.ms for row in rows), default=1.0)
    for row in rows:
        style = "bold" if row.ours else ""
        cells = [Text(row.label, style), Text(significant(row.ms), style)]
        cells.append(Text(times(row.times_faster) if row.times_faster else ""))
        cells.append(Text(significant(row.distortion) if row.distortion is not None else ""))
        bar = Text("█" * max(1, round(bars * min(row.ms / slowest, 1))), "dim")
        table.add_row(*cells, *([bar] if bars else []))
    told = [Text(f"{name} is missing: {reason}", "dim") for name, reason in found.missing.items()]
    if found.noisy:
        told.append(Text("The machine was busy with something else: trust only large differences.", "yellow"))
    where = Text(f"report  {folder}/report.html")
    budgets = ", ".join(got.budget for got in report.verdict.budgets)
    title = Text(f" The same network for time: {budgets} ", style="bold")
    return Panel(Group(table, *told, where), title=title, title_align="left", width=min(width, 100))


def _next_steps(report: RunReport, folder: str) -> str:
    """What people do with a finished run; a run that was trained already is not trained again."""
    run = shlex.quote(folder)
    steps = [] if report.recovery else [f"fewer recover {run} --time 10min"]
    return "  or  ".join([*steps, f"fewer bench {run}", f"fewer export {run} --to onnx"])


def _comparison(report: RunReport) -> RenderableType:
    """Output error of every method at the same budget, the best first, with a bar."""
    from rich.text import Text

    rows = sorted(report.baselines, key=lambda row: (not row.met, row.distortion))
    ours = next((row.distortion for row in rows if row.ours), None)
    worst = max((row.distortion for row in rows), default=0.0) or 1.0
    width = console().width
    bars = 0 if width < 72 else BAR // 2 if width < 90 else BAR
    columns = [("at the same budget", "left"), ("distortion", "right"), ("against ours", "right")]
    # the first number that was measured on labelled data has a column of its own
    shown = (
        next((quality.name for quality in report.verdict.quality if quality.labelled), None) if width >= 90 else None
    )
    columns += [(shown, "right")] if shown else []
    table = _table(*columns, *([("", "left")] if bars else []))
    for row in rows:
        style = "bold" if row.ours else ""
        ratio = times(row.distortion / ours) if ours and not row.ours else ""
        label = shorten(row.label, 18 if not bars else 26 if bars < BAR else 40)
        cells = [Text(label, style), Text(significant(row.distortion), style)]
        cells.append(Text(ratio) if row.met else Text("over the budget", "dim"))
        if shown:
            cells.append(Text(measure(row.quality[shown], 3) if shown in row.quality else ""))
        bar = Text("█" * max(1, round(bars * min(row.distortion / worst, 1))), "dim")
        table.add_row(*cells, *([bar] if bars else []))
    return table


def plan_table(plan: Plan, before: Plan | None = None, width: int | None = None) -> RenderableType:
    """A plan by layer; with ``before``, only the layers whose option differs, and how.

    Parameters
    ----------
    plan
        To show.
    before
        The plan to compare with, usually the one in the run folder.
    width
        Of the terminal.
    """
    from rich.console import Group
    from rich.text import Text

    from fewer.core.budget import format_amount  # here, as it brings numpy

    width = width or console().width
    head = _table(("", "left"), ("plan", "right"), ("dense", "right"), ("share", "right"))
    if before is not None:
        head.add_column("plan before", justify="right")
    for metric, value in plan.cost.items():
        dense = plan.dense[metric]
        cells = [metric, format_amount(metric, value), format_amount(metric, dense)]
        cells.append(percent(value / dense) if dense else "")
        if before is not None:
            cells.append(format_amount(metric, before.cost[metric]) if metric in before.cost else "")
        head.add_row(*cells)
    old = significant(before.distortion) if before is not None else None
    predicted = f"predicted distortion {significant(plan.distortion)}" + (f", before {old}" if old else "")
    if before is None:
        table = _table(("layer", "left"), ("option@share gone", "left"), ("kept", "right"), ("distortion", "right"))
        for name, unit in plan.units.items():
            table.add_row(shorten(name, max(18, width - 48)), unit.option, _kept(unit), significant(unit.distortion))
        return Group(head, Text(predicted), table)
    changed = [
        (name, before.units[name].option, unit.option)
        for name, unit in plan.units.items()
        if name in before.units and before.units[name].option != unit.option
    ]
    told = Text(f"{predicted}; {len(changed)} of {len(plan.units)} layers change")
    if not changed:
        return Group(head, told)
    table = _table(("layer", "left"), ("before", "left"), ("now", "left"))
    for name, was, now in changed:
        table.add_row(shorten(name, max(18, width - 44)), Text(was, "dim"), now)
    return Group(head, told, table)


def _kept(unit: Any) -> str:
    weights = unit.cost.get("weights")
    return count(weights) if weights is not None else ""
