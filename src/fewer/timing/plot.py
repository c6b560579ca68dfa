"""The bench as one SVG picture: bars of wall time with their quartiles, one panel per thread setting."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError
from fewer.timing.result import BenchResult, Row, write_text

__all__ = ["to_svg"]

GREY = "#808080"
"""Readable on white and on black."""
COLOURS = {"fp32": "#4477aa", "bf16": "#cc8833", "int8": "#2f9e77"}


def to_svg(result: BenchResult, path: str | Path | None = None) -> str:
    """Draw the timed rows, also into a file if asked; no background, so that the page's own shows through.

    Raises
    ------
    FewerError
        When no row was timed.
    """
    timed = {t: [r for r in result.rows if r.threads == t and r.status == "ok" and r.wall_ms] for t in result.threads}
    timed = {threads: rows for threads, rows in timed.items() if rows}
    if not timed:
        raise FewerError("the bench has no timed row to draw")
    import matplotlib
    from matplotlib.figure import Figure

    most = max(len(rows) for rows in timed.values())
    style: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "fewer",
        "font.family": "sans-serif",
        "font.size": 9,
    }
    with matplotlib.rc_context(style):  # pyright: ignore[reportArgumentType]
        figure = Figure(figsize=(8.0, len(timed) * (0.27 * most + 0.65) + 0.45))
        panels = figure.subplots(len(timed), 1, squeeze=False)[:, 0]
        for axes, (threads, rows) in zip(panels, timed.items(), strict=True):
            _panel(axes, result, threads, rows)
        panels[-1].set_xlabel("milliseconds per call: median, quartiles (shorter is faster)", color=GREY)
        _legend(figure, {row.precision for rows in timed.values() for row in rows})
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / figure.get_figheight()))
        target = io.StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    if path is not None:
        write_text(Path(path), text)
    return text


def _panel(axes: Any, result: BenchResult, threads: int, rows: list[Row]) -> None:
    longest = max(row.wall.high for row in rows)
    places = range(len(rows))
    medians = [row.wall.median for row in rows]
    quartiles = [
        [m - r.wall.low for m, r in zip(medians, rows, strict=True)],
        [r.wall.high - r.wall.median for r in rows],
    ]
    colours = [COLOURS.get(row.precision, GREY) for row in rows]
    axes.barh(places, medians, color=colours, height=0.68, xerr=quartiles, error_kw={"ecolor": GREY, "elinewidth": 1})
    for place, row in zip(places, rows, strict=True):
        ratio = result.versus_eager(row)
        about = "~" if result.noisy_against_eager(row) else ""
        text = f"{row.wall.median:.3g} ms"
        text += f", {about}{ratio:.2f}x eager" if ratio and row.name != "torch-fp32" else ""
        axes.text(row.wall.high + 0.012 * longest, place, text, va="center", color=GREY, fontsize=8)
    axes.set_yticks(places, [row.label for row in rows], color=GREY)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.kind == "extra" else "normal")
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.3)
    axes.set_title("1 thread" if threads == 1 else f"{threads} threads", loc="left", color=GREY, fontsize=10)
    axes.tick_params(colors=GREY, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "left")
        spine.set_color(GREY)
    axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(figure: Any, precisions: set[str]) -> None:
    from matplotlib.patches import Patch

    known = [name for name in COLOURS if name in precisions]
    handles = [Patch(color=COLOURS[name], label=name) for name in known]
    figure.legend(handles=handles, loc="upper right", ncols=len(known), frameon=False, labelcolor=GREY, fontsize=8)
