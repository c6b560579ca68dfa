"""The figures of a report that show every layer: what is kept of each, and the curve that each was planned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fewer.reports.compression.data import RunReport, UnitCurve, UnitResult
from fewer.reports.compression.layer_look import Look
from fewer.reports.compression.layers import blocks, roles
from fewer.reports.compression.plots import DISTORTION_AXIS, Bar, bars
from fewer.reports.figure import COLOUR, SERIES, SMALL, TEXT, Key, Plot, log_axis, name_axes, panel, plot, shorten
from fewer.reports.numbers import percent

__all__ = ["allocation", "curves"]

STRIP = 72
"""Pixels from one row of layers to the next, where they are drawn in rows."""
FEW_UNITS = 12
"""Up to so many layers are drawn as named bars; more of them as a strip in forward order."""


def allocation(report: RunReport) -> Plot | None:
    """What is left of each layer: named bars for a few layers, otherwise a strip in forward order.

    The colour is the precision where there are several, else the role of the layer.
    """
    units = report.units
    if not units:
        return None
    look = Look.of(units)
    shown = list(zip(units, look.values, look.texts, strict=True))
    (low, _, least), (high, _, most) = min(shown, key=lambda one: one[1]), max(shown, key=lambda one: one[1])
    alt = (
        f"Bar chart of {look.what} for {len(units)} layers in forward order, {look.average_text} on average; "
        f"least {least} in {shorten(low.name, 60)}, most {most} in {shorten(high.name, 60)}."
    )
    if len(units) <= FEW_UNITS:
        rows = [
            Bar(unit.name, value, text, look.colours[group] if look.by_precision else "c1")
            for (unit, value, text), group in zip(shown, look.groups, strict=True)
        ]
        keys = look.keys() if look.by_precision else ()
        return bars("allocation", look.title, alt, rows, look.axis, top=1.0, width=640, legend=keys)
    strip = _Strip(units, look)
    wide, narrow = strip.size(1000, 270), strip.size(350, 250)
    return plot("allocation", look.title, alt, strip.draw, wide=wide, narrow=narrow, legend=strip.legend())


class _Strip:
    """Many layers as thin bars in forward order: in one row, or in a row per role where one would be too narrow."""

    def __init__(self, units: Sequence[UnitResult], look: Look) -> None:
        self.units, self.look = units, look
        self.role_of = roles(units)
        self.order = list(dict.fromkeys(self.role_of))
        self.pattern, self.runs = blocks([unit.name for unit in units])

    def in_rows(self, width: float) -> bool:
        """Whether less than four pixels are left for a layer in one row."""
        return width / len(self.units) < 4 and len(self.order) > 1

    def size(self, width: float, height: float) -> tuple[float, float]:
        """Of the figure; ``height`` is that of one row."""
        return width, 28 + 46 + STRIP * len(self.order) - 16 if self.in_rows(width) else height

    def legend(self) -> list[Key]:
        """What the colours mean, where there are several, and the average."""
        return [*self.look.keys(), Key(f"whole model: {self.look.average_text}", "ink", line="dashed")]

    def draw(self, figure: Figure, is_narrow: bool) -> dict[str, str]:
        """Draw the rows; the wide figure has a tip for each layer."""
        everyone = list(range(len(self.units)))
        rows = [("", everyone)]
        if self.in_rows(figure.get_size_inches()[0] * 72):
            rows = [(role, [index for index in everyone if self.role_of[index] == role]) for role in self.order]
        slots = max(len(members) for _, members in rows)
        tips = {}
        for row, (role, members) in enumerate(rows):
            # 16 of the pixels of a row are the gap below it
            axes = panel(figure, 48, 28 + row * STRIP, 6, 46 + (len(rows) - 1 - row) * STRIP)
            tips |= self._draw_row(axes, members, slots, has_tips=not is_narrow)
            ticks = 6 if is_narrow else 12
            if role:
                self._name_row(axes, row == len(rows) - 1, ticks)
            else:
                axes.set_yticks([0, 0.25, 0.5, 0.75, 1], list(self.look.ticks))
                _name_layers(axes, axes.get_window_extent().width / slots, self.pattern, self.runs, ticks)
            if row == 0:
                name_axes(axes, axes.get_xlabel(), self.look.axis)
        return tips

    def _draw_row(self, axes: Axes, members: list[int], slots: int, *, has_tips: bool) -> dict[str, str]:
        """The bars of some layers over the line of the average; a tip per layer by its id in the drawing."""
        gap = 0.18 if axes.get_window_extent().width / slots > 5 else 0.0
        tips = {}
        axes.add_patch(Rectangle((0, 0), len(members), 1, facecolor=COLOUR["grid"], alpha=0.4))
        for place, index in enumerate(members):
            unit, colour = self.units[index], self.look.colours[self.look.groups[index]]
            axes.add_patch(Rectangle((place + gap / 2, 0), 1 - gap, self.look.values[index], facecolor=COLOUR[colour]))
            if has_tips:
                # an unseen rectangle of full height, so that even an empty layer answers to the pointer
                gid = f"tip-{index}"
                tips[gid] = f"{index + 1}. {unit.name}: {percent(unit.kept)} kept ({unit.option})"
                axes.add_patch(Rectangle((place, 0), 1, 1, facecolor=COLOUR["card"], alpha=0, gid=gid))
        axes.set(xlim=(0, slots), ylim=(0, 1))
        axes.grid(False)
        axes.plot([0, len(members)], [self.look.average] * 2, color=COLOUR["ink"], linewidth=1.3, linestyle=(0, (4, 3)))
        return tips

    def _name_row(self, axes: Axes, is_last: bool, ticks: int) -> None:
        """Ticks of one row of several; only the last one has numbers below it."""
        axes.set_yticks([0, 1], [self.look.ticks[0], self.look.ticks[-1]])
        axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
        axes.tick_params(labelbottom=is_last)
        if is_last:
            name_axes(axes, "layers of the same role, in forward order")


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
    panels = _Panels(report)
    count = len(panels.members)
    alt = (
        f"Line charts of distortion against the share of removed weights for {len(report.curves)} layers, "
        f"in {count} panels: {', '.join(shorten(role, 40) for role in panels.members)}. "
        "A dot marks the chosen point of each layer."
    )
    return plot(
        "curves",
        "Distortion of each layer when it is cut alone",
        alt,
        panels.draw,
        wide=(1000 if count > 2 else 640, 60 + 210 * -(-count // panels.columns(is_narrow=False))),
        narrow=(350, 60 + 185 * -(-count // 2)),
        legend=[Key("one layer", "muted", line="solid"), Key("the option that the plan chose", "ink", "o")],
    )


@dataclass(frozen=True)
class _Place:
    """Where a panel is: offset from the left and the top, width and height, all in pixels."""

    left: float
    top: float
    width: float
    height: float


class _Panels:
    """The curves by the role of their layer, and a panel for each role."""

    def __init__(self, report: RunReport) -> None:
        by_name = dict(zip((unit.name for unit in report.units), roles(report.units), strict=True))
        self.members: dict[str, list[UnitCurve]] = {}
        for curve in report.curves:
            self.members.setdefault(by_name.get(curve.unit, "layers"), []).append(curve)
        # same colours as in the figure of the layers, where that one is coloured by role
        all_roles = list(dict.fromkeys([*by_name.values(), *self.members]))
        self.colours = {role: SERIES[index % len(SERIES)] for index, role in enumerate(all_roles)}
        self.values = [value for curve in report.curves for value in curve.distortion]

    def columns(self, is_narrow: bool) -> int:
        """How many panels stand beside each other."""
        count = len(self.members)
        if is_narrow:
            return min(count, 2)
        return count if count <= 5 else -(-count // 2)

    def places(self, width: float, height: float, columns: int) -> list[_Place]:
        """Of all panels, line by line, within a figure of this size."""
        left, gap, head, foot, between = 50.0, 30.0, 54.0, 46.0, 56.0
        lines = -(-len(self.members) // columns)
        cell = (width - left - 16 - gap * (columns - 1)) / columns
        tall = (height - head - foot - between * (lines - 1)) / lines
        found = []
        for index in range(len(self.members)):
            line, column = divmod(index, columns)
            found.append(_Place(left + column * (cell + gap), head + line * (tall + between), cell, tall))
        return found

    def draw(self, figure: Figure, is_narrow: bool) -> None:
        """Draw all panels; labels of an axis stand only where no other panel is before them."""
        columns, count = self.columns(is_narrow), len(self.members)
        width, height = figure.get_size_inches() * 72
        places = self.places(width, height, columns)
        for index, (role, place) in enumerate(zip(self.members, places, strict=True)):
            right, bottom = width - place.left - place.width, height - place.top - place.height
            axes = panel(figure, place.left, place.top, right, bottom)
            self._draw_role(axes, role, place.width)
            if index % columns:
                axes.tick_params(labelleft=False)
            title = f"{shorten(role, int(place.width / 10))} ({len(self.members[role])})"
            axes.text(0, 1.04, title, transform=axes.transAxes, color=COLOUR["ink"], fontsize=TEXT, fontweight="bold")
            if index + columns >= count:  # nothing is below it
                name_axes(axes, "weights removed (%)")
        scale = ", log scale" if any(value > 0 for value in self.values) else ""
        label = DISTORTION_AXIS + scale
        figure.text(2 / width, 1 - 14 / height, label, color=COLOUR["muted"], fontsize=SMALL)

    def _draw_role(self, axes: Axes, role: str, width: float) -> None:
        """The curves of one role and their chosen points, over the whole range of shares."""
        is_log = log_axis(axes.yaxis, self.values)
        mine = self.members[role]
        lines = [
            [(x, y) for x, y in zip(curve.sparsity, curve.distortion, strict=True) if y > 0 or not is_log]
            for curve in mine
        ]
        lines = [points for points in lines if points]  # a layer that distorts nothing has no point on a log axis
        thickness = 1.1 if len(mine) <= 16 else 0.5
        axes.add_collection(LineCollection(lines, colors=COLOUR[self.colours[role]], linewidths=thickness))
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
        axes.set_xticks([0, 0.5, 1] if width < 240 else [0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, 0)))
        # labels at the ends stay inside, so that neighbours do not touch
        ends = axes.get_xticklabels()
        ends[0].set_horizontalalignment("left")
        ends[-1].set_horizontalalignment("right")
