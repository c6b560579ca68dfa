"""From a matplotlib figure to inline SVG that takes its colours and its font from the page.

A figure is drawn twice, wide for a desk and narrow for a phone, because text that shrinks with the picture cannot be
read. Colours are written as sentinels, one for each role, and replaced by CSS variables, so that dark mode works.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fewer.reports.numbers import percent

ROLES = ("ink", "muted", "grid", "card", "ours", "other", "good", "bad", *(f"c{index}" for index in range(1, 8)))
COLOUR = {role: f"#a1b2{index:02x}" for index, role in enumerate(ROLES)}
"""Sentinel colour of each role; the SVG gets ``var(--role)`` in its place."""

SERIES = tuple(f"c{index}" for index in range(1, 8))
"""Roles of the categorical palette."""

MARKERS = ("s", "^", "D", "v", "P", "X", "o")
TEXT = 13.0
SMALL = 12.0

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fewer",
    "svg.id": None,
    # a layer name with a dollar sign is a name, not mathematics
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": TEXT,
    "path.simplify": False,
}


@dataclass(frozen=True)
class Key:
    """One entry of a legend.

    ``colour`` is a role, ``marker`` a matplotlib marker or empty, ``line`` is solid, dashed, area or empty.
    """

    label: str
    colour: str
    marker: str = ""
    line: str = ""


@dataclass(frozen=True)
class Plot:
    """A figure ready for the page: the same drawing wide and narrow, its title, its text alternative and its legend."""

    name: str
    title: str
    alt: str
    wide: str
    narrow: str
    wide_px: int
    legend: tuple[Key, ...] = ()


def plot(
    name: str,
    title: str,
    alt: str,
    draw: Callable[[Figure, bool], dict[str, str] | None],
    *,
    wide: tuple[float, float],
    narrow: tuple[float, float],
    legend: Iterable[Key] = (),
) -> Plot:
    """Draw a figure in both widths.

    Parameters
    ----------
    name : str
        Prefix of every id in the SVG; must be unique on the page.
    title, alt : str
        Heading of the figure, and a sentence for those who cannot see it.
    draw : callable
        ``draw(figure, is_narrow)`` fills an empty figure; it may return tooltips as {gid of an artist: text}.
    wide, narrow : (float, float)
        Width and height in CSS pixels.
    legend : iterable of Key
        Shown by the page as text, so that it wraps.
    """
    drawings = []
    for is_narrow, (width, height) in ((False, wide), (True, narrow)):
        with mpl.rc_context(_RC):
            figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
            tips = draw(figure, is_narrow) or {}
            drawings.append(_to_svg(figure, f"{name}-{'n' if is_narrow else 'w'}", alt, tips))
    return Plot(name, title, alt, drawings[0], drawings[1], round(wide[0]), tuple(legend))


def _to_svg(figure: Figure, prefix: str, alt: str, tips: dict[str, str]) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # the browser has glyphs that matplotlib's own font lacks; only the measured width is a guess then
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # the <style> of matplotlib would hold for the whole page; the page has its own
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if element.get("id") in tips:
            title = ElementTree.Element("title")
            title.text = tips[element.get("id", "")]
            element.insert(0, title)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            if restyled := _restyle(value):
                element.set(key.rpartition("}")[2], restyled)
    _own_ids(root, prefix)
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "aria-label": alt,
        "class": "plot-" + ("narrow" if prefix.endswith("-n") else "wide"),
    }
    for element in root.iter():
        element.tail = None
        if element.tag not in ("text", "title"):
            element.text = None
    _drop_empty(root)
    return ElementTree.tostring(root, encoding="unicode")


def _restyle(value: str) -> str:
    """Put the page's colours and font in the place of matplotlib's, and drop digits that nobody can see."""
    value = re.sub(r"#a1b2([0-9a-f]{2})\b", lambda found: f"var(--{ROLES[int(found.group(1), 16)]})", value)
    # both spellings of matplotlib: the shorthand of older releases, and one property each
    value = re.sub(r"\bfont: (?:(bold|\d00) )?([\d.]+px)[^;]*", r"font-weight: \1; font-size: \2", value)
    value = re.sub(r"font-weight: (;|normal;?) ?|font-family: [^;]*;? ?|^rotate\(-?0(?:\.0)? .*\)$", "", value)
    return re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found.group()):.2f}".rstrip("0").rstrip("."), value)


def _drop_empty(element: ElementTree.Element) -> None:
    for child in list(element):
        _drop_empty(child)
        is_blank = child.tag == "path" and child.get("style") == "fill: none"
        if is_blank or (child.tag in ("g", "defs") and len(child) == 0):
            element.remove(child)


def _own_ids(root: ElementTree.Element, prefix: str) -> None:
    """Keep only the ids that are referred to, and make them this figure's own."""
    used: dict[str, str] = {}
    pattern = re.compile(r"url\(#([^)]+)\)|^#(.+)$")
    for element in root.iter():
        for key, value in element.attrib.items():
            if found := pattern.search(value):
                old = found.group(1) or found.group(2)
                new = used.setdefault(old, f"{prefix}{len(used)}")
                element.set(key, value.replace(f"#{old}", f"#{new}"))
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in used:
            element.set("id", used[old])


def panel(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Add axes with these margins in pixels, in the plain style of the page: no box, light horizontal grid."""
    width, height = figure.get_size_inches() * 72
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = figure.add_axes(box, facecolor="none")
    style(axes)
    return axes


def style(axes: Axes) -> None:
    """Give axes the plain style of the page."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(COLOUR["muted"])
    axes.spines["bottom"].set_linewidth(0.8)
    axes.grid(True, axis="y", color=COLOUR["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=SMALL, labelcolor=COLOUR["muted"], pad=5)


def name_axes(axes: Axes, x: str, y: str = "") -> None:
    """Write the axis names: x below, y level and above the axis, where nobody has to tilt the head."""
    axes.set_xlabel(x, color=COLOUR["muted"], fontsize=SMALL, labelpad=6)
    if y:
        axes.annotate(
            y,
            (0, 1),
            xytext=(-axes.get_window_extent().x0 + 2, 10),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="left",
            va="bottom",
            color=COLOUR["muted"],
            fontsize=SMALL,
            annotation_clip=False,
        )


_DECADES = (-300.0, 300.0)
"""What an axis can show; numbers beyond come from damaged reports alone."""


def log_axis(axis: Axis, values: Iterable[float]) -> bool:
    """Make an axis logarithmic over the positive values; return False (and leave it linear) if there are none.

    A logarithmic axis cannot show 0: the caller leaves zeros out and says so.
    """
    positive = np.asarray([value for value in values if 0 < value < float("inf")], dtype=float)
    if positive.size == 0:
        axis.axes.set(**{f"{axis.axis_name}lim": (0, 1)})  # type: ignore[attr-defined]
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return False
    low, high = np.clip(np.log10([positive.min(), positive.max()]), _DECADES[0] + 1, _DECADES[1] - 1)
    margin = max(0.06 * (high - low), 0.08)
    low, high = max(low - margin, _DECADES[0]), min(high + margin, _DECADES[1])
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    axis.axes.set(**{f"{axis.axis_name}lim": (10**low, 10**high)})  # type: ignore[attr-defined]
    decades = high - low
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades < 0.8 else (1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)
    axis.set_major_locator(LogLocator(10, subs=subs, numticks=7 if decades >= 2.2 else 20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    return True


def tick(value: float) -> str:
    """Write a tick of a logarithmic axis: 0.05, 0.001, then 1e-4."""
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if value < 0.00095 or value >= 1e4 else f"{value:g}"


def percent_axis(axis: Axis, ticks: int = 6) -> None:
    """Write an axis of fractions as percent."""
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, 0 if abs(value * 100 % 1) < 1e-6 else 1)))


def shorten(name: str, limit: int) -> str:
    """Cut a long name in the middle: its start and its end tell layers apart.

    Examples
    --------
    >>> shorten("backbone.stages.3.blocks.17.mlp.fc1", 20)
    'backbone.…17.mlp.fc1'
    """
    if len(name) <= limit:
        return name
    tail = (limit - 1) * 11 // 20
    return f"{name[: limit - 1 - tail]}…{name[len(name) - tail :]}"
