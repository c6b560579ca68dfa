"""The figures of a report, one function each: a report in, a `Plot` out, or None if the report has nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fewer.reports.compression.data import FrontierPoint, RunReport
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
from fewer.reports.numbers import duration, quantity, significant

DISTORTION_AXIS = "distortion (relative output error)"


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: its label, value, the value as text, and the role of its colour."""

    label: str
    value: float
    text: str
    colour: str = "other"
    bold: bool = False


def bars(
    name: str,
    title: str,
    alt: str,
    rows: Sequence[Bar],
    axis: str,
    *,
    top: float | None = None,
    width: float = 460,
    legend: Sequence[Key] = (),
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
    return plot(name, title, alt, draw, wide=(width, height), narrow=(350, height), legend=legend)


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


@dataclass(frozen=True)
class Series:
    """One line of the frontier: its entry in the legend, and its (cost, distortion) points."""

    key: Key
    points: list[tuple[float, float]]

    def draw(self, axes: Axes, is_log: bool) -> None:
        """Ours is drawn thicker; a point of no distortion has no place on a log axis."""
        shown = [point for point in self.points if point[1] > 0 or not is_log]
        is_ours = self.key.colour == "ours"
        axes.plot(
            [cost for cost, _ in shown],
            [value for _, value in shown],
            color=COLOUR[self.key.colour],
            linestyle={"solid": "-", "dashed": (0, (4, 3))}.get(self.key.line, "none"),
            linewidth=2.4 if is_ours else 1.4,
            marker=self.key.marker or None,
            markersize=7.5 if is_ours else 6.5,
            markeredgecolor=COLOUR["card"],
            markeredgewidth=0.8,
            clip_on=False,
        )


def _series(report: RunReport) -> list[Series]:
    """Ours as measured and as predicted, then each baseline; those without a point are left out."""
    data = report.frontier
    if data is None:
        return []
    labels = {row.name: row.label for row in report.baselines}
    found = [
        Series(Key("fewer, measured", "ours", "o", "solid"), points_of(data.ours, "measured")),
        Series(Key("fewer, predicted by the plan", "ours", "", "dashed"), points_of(data.ours, "predicted")),
    ]
    for index, (name, points) in enumerate(data.baselines.items()):
        colour, marker = SERIES[1 + index % (len(SERIES) - 1)], MARKERS[index % len(MARKERS)]
        key = Key(labels.get(name, name), colour, marker, "solid" if len(points) > 1 else "")
        found.append(Series(key, points_of(points, "measured")))
    found.append(Series(Key("this run's model", "good", "D"), finished_point(report)))
    return [one for one in found if one.points]


def finished_point(report: RunReport) -> list[tuple[float, float]]:
    """Where the finished model lies among other budgets: it is repaired as a whole, and they layer by layer."""
    data, value = report.frontier, report.verdict.distortion
    if data is None or data.unit or value is None:
        return []
    return [
        (got.reached / got.dense, value) for got in report.verdict.budgets if got.metric == data.metric and got.dense
    ]


def frontier(report: RunReport) -> Plot | None:
    """Distortion (log) against budget: ours predicted (dashed) and measured (solid), and the baselines."""
    data, series = report.frontier, _series(report)
    if data is None or not series:
        return None
    everything = [point for one in series for point in one.points]
    is_fraction = not data.unit and max(cost for cost, _ in everything) <= 1.0 + 1e-9

    def draw(figure: Figure, is_narrow: bool) -> None:
        axes = panel(figure, 50, 28, 16, 46)
        is_log = log_axis(axes.yaxis, [value for _, value in everything])
        for one in reversed(series):  # ours is drawn last, over the others
            one.draw(axes, is_log)
        if is_fraction:
            percent_axis(axes.xaxis, 5 if is_narrow else 8)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4 if is_narrow else 7))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value, data.unit)))
        unit = "% of the dense model" if is_fraction else data.unit
        name = data.label.partition(" (")[0]  # how it was measured stands in the title, and would be cut off here
        name_axes(axes, f"{name} ({unit})" if unit else name, DISTORTION_AXIS + (", log scale" if is_log else ""))

    ours = points_of(data.ours, "measured") or points_of(data.ours, "predicted")
    told = ""
    if ours:
        first, last = significant(ours[0][1]), significant(ours[-1][1])
        told = f" Ours goes from {first} at the smallest budget to {last} at the largest."
    return plot(
        "frontier",
        f"Distortion against {data.label}",
        f"Line chart of distortion against {data.label} for {len(series)} series.{told}",
        draw,
        wide=(640, 350),
        narrow=(350, 300),
        legend=[one.key for one in series],
    )


def points_of(points: Sequence[FrontierPoint], field: str) -> list[tuple[float, float]]:
    pairs = [(point.cost, getattr(point, field)) for point in points]
    return sorted((cost, value) for cost, value in pairs if value is not None)


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
