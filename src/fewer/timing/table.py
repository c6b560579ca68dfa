"""The bench as rich tables for a terminal, from 80 columns up. Builds, never prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fewer.timing.layers import LayersResult
from fewer.timing.result import BenchResult, Row
from fewer.timing.spread import NOISY

__all__ = ["bench_tables", "layers_table"]

WIDE = 110
"""From this many columns on there is room for loading time and memory."""


def bench_tables(result: BenchResult, width: int = 80) -> RenderableType:
    """Everything a person needs: the head line, one table per thread setting, and what must be known to read them."""
    parts: list[RenderableType] = [Text(_head(result), style="bold"), Text(_machine(result.environment), style="dim")]
    for threads in result.threads:
        parts += [Text(), _table(result, threads, width >= WIDE)]
        untimed = [row for row in result.rows if row.threads == threads and row.status != "ok"]
        column = min(22, max((len(row.label) for row in result.rows), default=0) + 2)
        for row in untimed:
            line = Text(" " + row.label.ljust(column), style="dim")
            parts.append(line.append(f"{row.status}: {row.reason}", style="yellow"))
    parts.append(Text())
    parts += [Text(f"{line}", style="dim") for line in _notes(result)]
    return Group(*parts)


def _head(result: BenchResult) -> str:
    shapes = ", ".join("x".join(map(str, shape)) for shape in result.input_shapes)
    return f"{result.model}, input {shapes}, {result.rounds} interleaved rounds"


def _machine(environment: dict[str, Any]) -> str:
    if not environment:
        return ""
    isa = environment.get("isa") or ""
    cpus = environment.get("cores")
    parts = [f"{environment.get('cpu')}", f"{cpus} CPU{'s' if cpus != 1 else ''}", isa, f"torch {environment['torch']}"]
    return ", ".join(part for part in parts if part)


def _table(result: BenchResult, threads: int, wide: bool) -> Table:
    heading = "1 thread" if threads == 1 else f"{threads} threads"
    table = Table(box=None, padding=(0, 1), pad_edge=True, header_style="bold", collapse_padding=False)
    table.add_column(heading, overflow="fold")
    for name in ("ms", "spread", "CPU ms", "vs eager", "vs best", "peak MB", "distortion"):
        table.add_column(name, justify="right", no_wrap=True)
    if wide:
        table.add_column("load s", justify="right", no_wrap=True)
        table.add_column("load MB", justify="right", no_wrap=True)
        table.add_column("best dense peer", no_wrap=True)
    for row in result.rows:
        if row.threads == threads and row.status == "ok" and row.wall_ms:
            table.add_row(*_cells(result, row, wide), style="bold" if row.kind == "extra" else None)
    return table


def _cells(result: BenchResult, row: Row, wide: bool) -> list[str | Text]:
    noisy = row.wall.noisy
    best = result.best_dense(row)
    cells: list[str | Text] = [
        row.label if row.own_process else f"{row.label} *",
        _number(row.wall.median),
        Text(f"{100 * row.wall.relative:.0f} %", style="yellow" if noisy else ""),
        _number(row.cpu.median),
        _times(result.versus_eager(row), result.noisy_against_eager(row)),
        "best" if best is row else _times(result.versus_best(row), noisy or (best is not None and best.wall.noisy)),
        _megabytes(row.memory_bytes),
        _distortion(row.relative_error),
    ]
    if wide:
        load = "" if row.load_s is None else _number(row.load_s)
        name = best.label if best is not None and best is not row else ""
        cells += [load, _megabytes(row.load_memory_bytes), name]
    return cells


def _notes(result: BenchResult) -> Iterable[str]:
    yield "ms: median wall time of a call; spread: interquartile range over the median; CPU ms: all threads together."
    yield (
        "vs eager, vs best: times faster than torch eager fp32, and than the quickest dense peer of the same "
        "precision; medians over rounds, so a ratio can differ a little from that of the medians."
    )
    yield (
        "peak MB: the peer's whole process while it runs; distortion: squared change of the output over the squared "
        "output of the dense model in fp32, "
        f"over {result.judged} input{'s' if result.judged != 1 else ''}."
    )
    if any(not row.own_process for row in result.rows):
        yield (
            "* timed in this process, since no other can rebuild it: its CPUs are not limited by the system, its "
            "memory is not measured."
        )
    told: dict[str, list[str]] = {}
    for label, note in {row.label: row.note for row in result.rows if row.note}.items():
        told.setdefault(note, []).append(label)
    for note, labels in told.items():
        yield f"{', '.join(labels)}: {note}."
    for threads in result.threads:
        if noisy := result.noisy_rows(threads):
            where = "1 thread" if threads == 1 else f"{threads} threads"
            again = ", after repeating once" if threads in result.repeated else ""
            yield (
                f"Noisy (~) at {where}{again}: {', '.join(row.label for row in noisy)} "
                f"(spread above {100 * NOISY:.0f} %). Close other programs; until then trust only large differences"
                + (", or compare the CPU ms, which leave interruptions out." if threads == 1 else ".")
            )
    if result.input_origin:
        yield f"Input: {result.input_origin}."
    yield from result.notes


def layers_table(result: LayersResult, width: int = 80, least: float = 0.005) -> RenderableType:
    """Which layer costs what; layers whose names differ in numbers only stand in one line, trifles in none."""
    unit = "thread" if result.threads == 1 else "threads"
    shapes = ", ".join("x".join(map(str, shape)) for shape in result.input_shapes)
    head = f"{result.model}, input {shapes}, {result.threads} {unit}, torch eager: {_number(result.total_ms)} ms"
    peaks = ", ".join(f"{name} {value / 1e9:.0f} G{_operations(name)}/s" for name, value in result.peaks.items())
    roof = f"Measured roofline: {peaks}; memory {result.bandwidth / 1e9:.1f} GB/s."
    wide = width >= WIDE
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("layer", no_wrap=True, overflow="ellipsis")
    table.add_column("kind", no_wrap=True, overflow="ellipsis")
    for name in ("ms", "share", *(("GFLOP", "FLOP/byte") if wide else ()), "GFLOP/s", "of roof"):
        table.add_column(name, justify="right", no_wrap=True)
    groups = result.grouped()
    shown = [layer for layer in groups if layer.share >= least]
    for layer in shown:
        speed = layer.flops / layer.own_ms / 1e6 if layer.flops and layer.own_ms > 0 else None
        bound = {"compute": "C", "memory": "M"}.get(layer.bound or "", "")
        cells = [
            layer.name if layer.count == 1 else f"{layer.name} x{layer.count}",
            layer.kind,
            _number(layer.own_ms),
            f"{100 * layer.share:.1f} %",
        ]
        if wide:
            cells += ["" if not layer.flops else _number(layer.flops / 1e9)]
            cells += ["" if layer.intensity is None else f"{layer.intensity:.1f}"]
        cells += ["" if speed is None else f"{speed:.0f}"]
        cells += ["" if layer.roofline is None else f"{100 * layer.roofline:.0f} % {bound}"]
        table.add_row(*cells)
    lines = [roof]
    if len(shown) < len(groups):
        rest = [layer for layer in groups if layer.share < least]
        share = sum(layer.share for layer in rest)
        lines.append(
            f"{sum(layer.count for layer in rest)} cheaper modules are left out: {100 * share:.1f} % together."
        )
    lines.append(
        "A module with children counts with its own work only (attention, additions). Of roof: part of what the "
        "roofline allows; C, M: bound by compute, by memory. Data that stays in the cache can exceed 100 %."
    )
    if result.hooked_ms > 1.15 * result.total_ms:
        clock = "the CPU time of layers leaves" if result.threads == 1 else "medians per layer leave"
        lines.append(
            f"A whole pass took {_number(result.hooked_ms)} ms by the clock: the machine is busy, and {clock} its "
            "interruptions out."
        )
    return Group(Text(head, style="bold"), Text(), table, Text(), *[Text(line, style="dim") for line in lines])


def _operations(precision: str) -> str:
    return "OP" if precision == "int8" else "FLOP"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _times(value: float | None, noisy: bool = False) -> str:
    return "" if value is None else f"{'~' if noisy and value != 1 else ''}{value:.2f}x"


def _megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.0f}"


def _distortion(norm: float | None) -> str:
    """What every report calls distortion: the square of the relative change that a row holds."""
    return "" if norm is None else "0" if norm == 0 else f"{norm**2:.1e}"
