"""The figures of a report, one function each: a report in, a `Plot` out, or None if the report has nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fewer.reports.compression.data import FrontierPoint, RunReport
from fewer.reports.compression.layers import blocks, roles
from fewer.reports.compression.words import best_row
from fewer.reports.figure import (
    COLOUR,
    MARKERS,
    SERIES,
    SMALL,
    TEXT,
    Key,
    Plot,
    log_axis,
    name_axes,
    panel,
    percent_axis,
    plot,
    shorten,
)
from fewer.reports.numbers import duration, percent, quantity, significant

DISTORTION_AXIS = "distortion (relative output error)"
STRIP = 72
"""Pixels from one row of layers to the next, where they are drawn in rows."""
FEW_UNITS = 12
"""Up to so many layers are drawn as named bars; more of them as a strip in forward order."""


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: its label, value, the value as text, and the role of its colour."""

    label: str
    value: float
    text: str
    colour: str = "other"
    bold: bool = False


def bars(
    name: str, title: str, alt: str, rows: Sequence[Bar], axis: str, *, top: float | None = None, width: float = 460
) -> Plot:
    """Draw horizontal bars from zero, each label on its own line above its bar so that long labels fit."""
    pitch, head, foot = 42, 4, 26
    most = top if top is not None else (max(row.value for row in rows) or 1.0)

    def draw(figure: Figure, is_narrow: bool) -> dict[str, str]:
        pixels = figure.get_size_inches()[0] * 72
        axes = panel(figure, 2, head, 2, foot)
        axes.set(xlim=(0, 1), ylim=(len(rows) * pitch, 0))
        axes.spines["bottom"].set_visible(False)
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        # the longest bar leaves room for its value at its right
        room = 1 - (8.5 * max(len(row.text) for row in rows) + 8) / pixels
        tips = {}
        for index, row in enumerate(rows):
            y = index * pitch
            label = shorten(row.label, int(pixels / 7.4))
            weight = "bold" if row.bold else "normal"
            axes.text(0, y + 14, label, color=COLOUR["ink"], fontsize=TEXT, fontweight=weight, va="baseline")
            length = max(room * row.value / most, 1.5 / pixels)
            gid = f"tip-{index}"
            tips[gid] = f"{row.label}: {row.text}"
            axes.add_patch(Rectangle((0, y + 21), length, 13, facecolor=COLOUR[row.colour], gid=gid))
            axes.text(
                length + 6 / pixels,
                y + 32,
                row.text,
                color=COLOUR["ink"],
                fontsize=SMALL,
                fontweight=weight,
                va="baseline",
            )
        axes.text(0, len(rows) * pitch + 16, axis, color=COLOUR["muted"], fontsize=SMALL, va="baseline", clip_on=False)
        return tips

    height = head + foot + pitch * len(rows)
    return plot(name, title, alt, draw, wide=(width, height), narrow=(350, height))


def baselines(report: RunReport) -> Plot | None:
    """Bars of held-out distortion, best first; ours in the accent colour, the best row named so."""
    if not report.baselines:
        return None
    best = best_row(report)
    rows = []
    for row in sorted(report.baselines, key=lambda row: row.distortion):
        text = significant(row.distortion) + (" best" if row is best else "") + ("" if row.met else " over budget")
        rows.append(Bar(row.label, row.distortion, text, "ours" if row.ours else "other", row.ours))
    named = "; ".join(f"{row.label} {row.text}" for row in rows)
    return bars(
        "baselines",
        "Distortion of each method at the same budget",
        f"Bar chart of held-out distortion, smaller is better: {named}.",
        rows,
        "distortion on held-out images; smaller is better",
        width=370,
    )


def timings(report: RunReport) -> Plot | None:
    """Bars of the wall-clock time of each step, in the order of the work."""
    if not report.timings:
        return None
    rows = [Bar(name, seconds, duration(seconds)) for name, seconds in report.timings.items()]
    named = "; ".join(f"{row.label} {row.text}" for row in rows)
    return bars(
        "timings",
        "Where the time went",
        f"Bar chart of seconds per step: {named}.",
        rows,
        "wall-clock time of each step",
    )


def frontier(report: RunReport) -> Plot | None:
    """Distortion (log) against budget: ours predicted (dashed) and measured (solid), and the baselines."""
    data = report.frontier
    if data is None or not (data.ours or any(data.baselines.values())):
        return None
    labels = {row.name: row.label for row in report.baselines}
    series: list[tuple[Key, list[tuple[float, float]]]] = [
        (Key("fewer, measured", "ours", "o", "solid"), points_of(data.ours, "measured")),
        (Key("fewer, predicted by the plan", "ours", "", "dashed"), points_of(data.ours, "predicted")),
    ]
    for index, (name, points) in enumerate(data.baselines.items()):
        colour, marker = SERIES[1 + index % (len(SERIES) - 1)], MARKERS[index % len(MARKERS)]
        line = "solid" if len(points) > 1 else ""
        series.append((Key(labels.get(name, name), colour, marker, line), points_of(points, "measured")))
    series = [(key, points) for key, points in series if points]
    if not series:
        return None
    everything = [point for _, points in series for point in points]
    is_fraction = not data.unit and max(cost for cost, _ in everything) <= 1.0 + 1e-9

    def draw(figure: Figure, is_narrow: bool) -> None:
        axes = panel(figure, 50, 28, 16, 46)
        is_log = log_axis(axes.yaxis, [value for _, value in everything])
        # ours is drawn last, over the others
        for key, points in reversed(series):
            shown = [point for point in points if point[1] > 0 or not is_log]
            is_ours = key.colour == "ours"
            axes.plot(
                [cost for cost, _ in shown],
                [value for _, value in shown],
                color=COLOUR[key.colour],
                linestyle={"solid": "-", "dashed": (0, (4, 3))}.get(key.line, "none"),
                linewidth=2.4 if is_ours else 1.4,
                marker=key.marker or None,
                markersize=7.5 if is_ours else 6.5,
                markeredgecolor=COLOUR["card"],
                markeredgewidth=0.8,
                clip_on=False,
            )
        if is_fraction:
            percent_axis(axes.xaxis, 5 if is_narrow else 8)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4 if is_narrow else 7))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value, data.unit)))
        unit = "% of the dense model" if is_fraction else data.unit
        name_axes(
            axes, f"{data.label} ({unit})" if unit else data.label, DISTORTION_AXIS + (", log scale" if is_log else "")
        )

    measured = points_of(data.ours, "measured") or points_of(data.ours, "predicted")
    told = ""
    if measured:
        first, last = measured[0], measured[-1]
        told = (
            f" Ours goes from {significant(first[1])} at the smallest budget to {significant(last[1])} at the largest."
        )
    alt = f"Line chart of distortion against {data.label} for {len(series)} series.{told}"
    return plot(
        "frontier",
        f"Distortion against {data.label}",
        alt,
        draw,
        wide=(640, 350),
        narrow=(350, 300),
        legend=[key for key, _ in series],
    )


def points_of(points: Sequence[FrontierPoint], field: str) -> list[tuple[float, float]]:
    pairs = [(point.cost, getattr(point, field)) for point in points]
    return sorted((cost, value) for cost, value in pairs if value is not None)


def allocation(report: RunReport) -> Plot | None:
    """Kept weights of each layer: named bars for a few layers, otherwise a strip in forward order, coloured by role."""
    if not report.units:
        return None
    units = report.units
    total = sum(unit.weights for unit in units)
    average = sum(unit.kept_weights for unit in units) / total if total else 1.0
    low, high = min(units, key=lambda unit: unit.kept), max(units, key=lambda unit: unit.kept)
    title = "Weights kept in each layer"
    alt = (
        f"Bar chart of kept weights for {len(units)} layers in forward order, {percent(average)} on average; "
        f"least {percent(low.kept)} in {shorten(low.name, 60)}, most {percent(high.kept)} in {shorten(high.name, 60)}."
    )
    if len(units) <= FEW_UNITS:
        rows = [Bar(unit.name, unit.kept, percent(unit.kept), "c1") for unit in units]
        return bars("allocation", title, alt, rows, "kept weights of the layer (%)", top=1.0, width=640)
    named = roles(units)
    order = list(dict.fromkeys(named))
    colours = {role: SERIES[index % len(SERIES)] for index, role in enumerate(order)}
    members = {role: [index for index, its in enumerate(named) if its == role] for role in order}
    pattern, runs = blocks([unit.name for unit in units])

    def in_rows(width: float) -> bool:
        return width / len(units) < 4 and len(order) > 1

    def draw(figure: Figure, is_narrow: bool) -> dict[str, str]:
        rows = order if in_rows(figure.get_size_inches()[0] * 72) else [""]
        slots = max(len(members[role]) for role in rows) if rows is order else len(units)
        tips = {}
        for row, role in enumerate(rows):
            mine = members[role] if role else list(range(len(units)))
            # 16 of the pixels of a row are the gap below it
            axes = panel(figure, 48, 28 + row * STRIP, 6, 46 + (len(rows) - 1 - row) * STRIP)
            pixels = axes.get_window_extent().width / slots
            gap = 0.18 if pixels > 5 else 0.0
            axes.add_patch(Rectangle((0, 0), len(mine), 1, facecolor=COLOUR["grid"], alpha=0.4))
            for place, index in enumerate(mine):
                unit, box = units[index], (place + gap / 2, 0)
                axes.add_patch(Rectangle(box, 1 - gap, unit.kept, facecolor=COLOUR[colours[named[index]]]))
                if not is_narrow:
                    # an unseen rectangle of full height, so that even an empty layer answers to the pointer
                    gid = f"tip-{index}"
                    tips[gid] = f"{index + 1}. {unit.name}: {percent(unit.kept)} kept ({unit.option})"
                    axes.add_patch(Rectangle((place, 0), 1, 1, facecolor=COLOUR["card"], alpha=0, gid=gid))
            axes.set(xlim=(0, slots), ylim=(0, 1))
            axes.grid(False)
            axes.plot([0, len(mine)], [average] * 2, color=COLOUR["ink"], linewidth=1.3, linestyle=(0, (4, 3)))
            if role:
                axes.set_yticks([0, 1], ["0%", "100%"])
                is_last = row == len(rows) - 1
                axes.xaxis.set_major_locator(MaxNLocator(6 if is_narrow else 12, integer=True))
                axes.tick_params(labelbottom=is_last)
                if is_last:
                    name_axes(axes, "layers of the same role, in forward order")
            else:
                axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
                _name_layers(axes, pixels, pattern, runs, 6 if is_narrow else 12)
            if row == 0:
                name_axes(axes, axes.get_xlabel(), "kept weights (% of the layer)")
        return tips

    def size(width: float, height: float) -> tuple[float, float]:
        return width, 28 + 46 + STRIP * len(order) - 16 if in_rows(width) else height

    legend = [Key(shorten(role, 40), colours[role], line="area") for role in order] if len(order) > 1 else []
    legend.append(Key(f"whole model: {percent(average)}", "ink", line="dashed"))
    return plot("allocation", title, alt, draw, wide=size(1000, 270), narrow=size(350, 250), legend=legend)


def _name_layers(axes: Axes, pixels: float, pattern: str, runs: list[tuple[str, int, int]], ticks: int) -> None:
    """Write the numbers of the blocks below a strip of layers, or of the layers where no blocks are known."""
    if not runs:
        axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
        name_axes(axes, "layer number, in forward order")
        return
    # every k-th block, so that labels stay at least 26 px apart
    step = int(np.ceil(26 / max(pixels * (runs[-1][2] - runs[0][1] + 1) / len(runs), 0.1)))
    shown = runs[::step]
    axes.set_xticks([(first + last + 1) / 2 for _, first, last in shown], [label for label, _, _ in shown])
    for _, first, _ in runs if pixels > 4 else []:
        axes.plot([first, first], [-0.035, 0], color=COLOUR["muted"], linewidth=0.8, clip_on=False)
    name_axes(axes, f"layers in forward order; N of {shorten('.'.join(pattern.split('.')[-2:]), 22)}")


def curves(report: RunReport) -> Plot | None:
    """Small multiples of the sensed curves, one panel for each role of layer, with the chosen points."""
    if not report.curves:
        return None
    by_name = dict(zip((unit.name for unit in report.units), roles(report.units), strict=True))
    named = [by_name.get(curve.unit, "layers") for curve in report.curves]
    order = list(dict.fromkeys(named))
    # same colours as in the allocation
    all_roles = list(dict.fromkeys([*by_name.values(), *order]))
    colours = {role: SERIES[index % len(SERIES)] for index, role in enumerate(all_roles)}
    values = [value for curve in report.curves for value in curve.distortion]
    wide_columns = len(order) if len(order) <= 5 else -(-len(order) // 2)

    def draw(figure: Figure, is_narrow: bool) -> None:
        columns = min(len(order), 2) if is_narrow else wide_columns
        lines = -(-len(order) // columns)
        width, height = figure.get_size_inches() * 72
        left, gap, head, foot, between = 50.0, 30.0, 54.0, 46.0, 56.0
        cell = (width - left - 16 - gap * (columns - 1)) / columns
        tall = (height - head - foot - between * (lines - 1)) / lines
        for index, role in enumerate(order):
            line, column = divmod(index, columns)
            offset = left + column * (cell + gap)
            top = head + line * (tall + between)
            axes = panel(figure, offset, top, width - offset - cell, height - top - tall)
            is_log = log_axis(axes.yaxis, values)
            mine = [curve for curve, its in zip(report.curves, named, strict=True) if its == role]
            shown = [
                [(x, y) for x, y in zip(curve.sparsity, curve.distortion, strict=True) if y > 0 or not is_log]
                for curve in mine
            ]
            shown = [points for points in shown if points]  # a layer that distorts nothing has no point on a log axis
            colour = COLOUR[colours[role]]
            axes.add_collection(LineCollection(shown, colors=colour, linewidths=1.1 if len(mine) <= 16 else 0.5))
            chosen = [(c.sparsity[c.chosen], c.distortion[c.chosen]) for c in mine if c.chosen is not None]
            chosen = [(x, y) for x, y in chosen if y > 0 or not is_log]
            axes.plot(
                [x for x, _ in chosen],
                [y for _, y in chosen],
                linestyle="none",
                marker="o",
                markersize=5.5,
                color=COLOUR["ink"],
                markeredgecolor=COLOUR["card"],
                markeredgewidth=0.9,
                clip_on=False,
            )
            axes.set_xlim(0, 1)
            axes.set_xticks([0, 0.5, 1] if cell < 240 else [0, 0.25, 0.5, 0.75, 1])
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, 0)))
            # labels at the ends stay inside, so that neighbours do not touch
            ends = axes.get_xticklabels()
            ends[0].set_horizontalalignment("left")
            ends[-1].set_horizontalalignment("right")
            if column:
                axes.tick_params(labelleft=False)
            title = f"{shorten(role, int(cell / 10))} ({len(mine)})"
            axes.text(0, 1.04, title, transform=axes.transAxes, color=COLOUR["ink"], fontsize=TEXT, fontweight="bold")
            if line == lines - 1 or index + columns >= len(order):
                name_axes(axes, "weights removed (%)")
        figure.text(
            2 / width,
            1 - 14 / height,
            DISTORTION_AXIS + (", log scale" if any(value > 0 for value in values) else ""),
            color=COLOUR["muted"],
            fontsize=SMALL,
        )

    lines_wide, lines_narrow = -(-len(order) // wide_columns), -(-len(order) // 2)
    alt = (
        f"Line charts of distortion against the share of removed weights for {len(report.curves)} layers, "
        f"in {len(order)} panels: {', '.join(shorten(role, 40) for role in order)}. "
        "A dot marks the chosen point of each layer."
    )
    return plot(
        "curves",
        "Distortion of each layer when it is cut alone",
        alt,
        draw,
        wide=(1000 if len(order) > 2 else 640, 60 + 210 * lines_wide),
        narrow=(350, 60 + 185 * lines_narrow),
        legend=[Key("one layer", "muted", line="solid"), Key("the option that the plan chose", "ink", "o")],
    )


def additivity(report: RunReport) -> Plot | None:
    """Measured joint distortion against the sum of the per-layer ones, with the diagonal where both agree."""
    data = report.additivity
    if data is None or not data.points:
        return None
    points = [(predicted, measured) for predicted, measured in data.points]
    everything = [value for point in [*points, (data.sum, data.joint)] for value in point]

    def draw(figure: Figure, is_narrow: bool) -> None:
        axes = panel(figure, 50, 28, 16, 46)
        axes.grid(True, color=COLOUR["grid"], linewidth=0.8)
        is_log = log_axis(axes.yaxis, everything)
        log_axis(axes.xaxis, everything)
        limits = axes.get_ylim()
        axes.plot(limits, limits, color=COLOUR["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
        shown = [(x, y) for x, y in points if (x > 0 and y > 0) or not is_log]
        axes.plot(
            [x for x, _ in shown],
            [y for _, y in shown],
            linestyle="none",
            marker="o",
            markersize=5.5,
            color=COLOUR["other"],
            markeredgecolor=COLOUR["card"],
            markeredgewidth=0.7,
        )
        if (data.sum > 0 and data.joint > 0) or not is_log:
            axes.plot(
                [data.sum],
                [data.joint],
                linestyle="none",
                marker="D",
                markersize=9,
                color=COLOUR["ours"],
                markeredgecolor=COLOUR["card"],
                markeredgewidth=1.2,
                clip_on=False,
            )
        scale = ", log scale" if is_log else ""
        name_axes(
            axes, f"predicted distortion: sum over layers{scale}", f"measured distortion: all cuts at once{scale}"
        )

    order = "" if data.spearman is None else f" Rank correlation (Spearman) {data.spearman:.2f}."
    return plot(
        "additivity",
        "Does the sum over layers predict the whole?",
        f"Scatter plot of measured against predicted distortion for {len(points)} plans.{order}",
        draw,
        wide=(480, 420),
        narrow=(350, 320),
        legend=[
            Key("a random plan", "other", "o"),
            Key("the chosen plan", "ours", "D"),
            Key("prediction = measurement", "muted", line="dashed"),
        ],
    )


def recovery(report: RunReport) -> Plot | None:
    """Learning curve: distortion on the images that chose the best state, against the seconds of training."""
    data = report.recovery
    if data is None or len(data.points) < 2:
        return None
    points = [(seconds, error) for seconds, error in data.points]

    def draw(figure: Figure, is_narrow: bool) -> None:
        axes = panel(figure, 50, 28, 16, 46)
        is_log = log_axis(axes.yaxis, [error for _, error in points])
        shown = [point for point in points if point[1] > 0 or not is_log]
        axes.plot(
            [x for x, _ in shown],
            [y for _, y in shown],
            color=COLOUR["ours"],
            linewidth=2.2,
            marker="o",
            markersize=6.5,
            markeredgecolor=COLOUR["card"],
            markeredgewidth=0.8,
            clip_on=False,
        )
        axes.xaxis.set_major_locator(MaxNLocator(4 if is_narrow else 6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(max(value, 0.0))))
        name_axes(axes, "time of training", DISTORTION_AXIS + (", log scale" if is_log else ""))

    (_, first), (_, last) = points[0], points[-1]
    return plot(
        "recovery",
        "Learning curve, on images that taught nothing",
        f"Line chart of distortion against time of training, from {significant(first)} to {significant(last)}.",
        draw,
        wide=(480, 300),
        narrow=(350, 260),
    )
