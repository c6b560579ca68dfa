"""The figure that holds a run against other runtimes: distortion against time."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fewer.reports.compression.data import RunReport
from fewer.reports.compression.parts import RuntimeRow, Runtimes
from fewer.reports.compression.plots import DISTORTION_AXIS, points_of
from fewer.reports.figure import COLOUR, MARKERS, SERIES, Key, Plot, log_axis, name_axes, panel, plot
from fewer.reports.labels import Named, label_points
from fewer.reports.numbers import significant

FLOOR = 1e-6
"""Smaller distortions are drawn here: they are rounding, and a logarithmic axis has no room for them."""


def runtimes(report: RunReport) -> Plot | None:
    """Distortion (log) against milliseconds: the run, its other plans as predicted, and every timed runtime.

    Points bear their names, and bars from the lower to the upper quartile of the time.
    """
    found = report.runtimes
    rows = [] if found is None else [row for row in found.rows if row.distortion is not None]
    if found is None or not rows:
        return None
    line = planned(report, found)
    series = [
        Key(row.label, "ours" if row.ours else SERIES[1 + i % (len(SERIES) - 1)], MARKERS[i % len(MARKERS)])
        for i, row in enumerate(rows)
    ]
    legend = [Key("other plans of this run, predicted time", "ours", "", "dashed")] if line else []

    def draw(figure: Figure, is_narrow: bool) -> None:
        axes = panel(figure, 50, 28, 16, 46)
        values = [row.distortion or 0.0 for row in rows] + [value for _, value in line]
        values = [max(FLOOR, value) for value in values] if any(values) else values
        is_log = log_axis(axes.yaxis, values)
        if line:
            axes.plot(*zip(*line, strict=True), color=COLOUR["ours"], linestyle=(0, (4, 3)), linewidth=1.4)
        for row, key, value in reversed(list(zip(rows, series, values, strict=False))):
            if (ends := _span(row)) is not None:
                axes.plot(ends, (value, value), color=COLOUR[key.colour], linewidth=1.4, marker="|", markersize=7)
            axes.plot(
                [row.ms], [value], color=COLOUR[key.colour], marker=key.marker, linestyle="none",
                markersize=10 if row.ours else 7, markeredgecolor=COLOUR["card"], markeredgewidth=0.8, clip_on=False,
            )  # fmt: skip
        axes.set_xlim(left=0)
        axes.margins(y=0.1)
        named = [Named(r.ms, value, r.label, r.ours, _span(r)) for r, value in zip(rows, values, strict=False)]
        label_points(axes, named, 18 if is_narrow else 30)
        axes.xaxis.set_major_locator(MaxNLocator(4 if is_narrow else 7))
        name_axes(axes, "milliseconds per call", DISTORTION_AXIS + (", log scale" if is_log else ""))

    told = "; ".join(f"{row.label}: {row.ms:.3g} ms, {significant(row.distortion or 0.0)}" for row in rows)
    return plot(
        "runtimes",
        "Distortion against time",
        f"Scatter plot of distortion against milliseconds per call, lower left is better: {told}.",
        draw,
        wide=(760, 400),
        narrow=(350, 360),
        legend=legend,
    )


def _span(row: RuntimeRow) -> tuple[float, float] | None:
    """Quartiles of the time."""
    return None if row.low_ms is None or row.high_ms is None else (row.low_ms, row.high_ms)


def planned(report: RunReport, found: Runtimes) -> list[tuple[float, float]]:
    """(ms, distortion) of the plans of the frontier, where it is one of time at the same threads and batch."""
    time, data = report.latency, report.frontier
    if data is None or data.metric != "latency" or time is None:
        return []
    if (time.threads, time.batch) != (found.threads, found.batch):
        return []
    dense = next((row.ms * row.times_faster for row in found.rows if row.ours and row.times_faster), None)
    points = points_of(data.ours, "measured")
    return [(cost * dense, max(FLOOR, value)) for cost, value in points] if dense and len(points) > 1 else []
