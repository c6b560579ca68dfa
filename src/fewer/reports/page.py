"""A plain page for what is no compression: tiles, tables, line charts and pictures, in the same dress as a report."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fewer.core.errors import FewerError
from fewer.core.reading import parse_json
from fewer.core.version import __version__
from fewer.reports.figure import COLOUR, MARKERS, SERIES, TEXT, Key, Plot, name_axes, panel, plot, shorten
from fewer.reports.values import Text

__all__ = [
    "Chart",
    "Dots",
    "Page",
    "Picture",
    "Section",
    "Series",
    "Strip",
    "Table",
    "Tile",
    "is_page",
    "lanes",
    "png_text",
]


Colour = Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Tile(_Part):
    """One number in large type; ``state`` is ``good``, ``bad`` or empty."""

    name: Text
    value: Text
    note: Text = ""
    state: Literal["", "good", "bad"] = ""


class Table(_Part):
    """A table; the first column holds names, the others numbers as text."""

    title: Text = ""
    head: list[Text]
    rows: list[list[Text]]


class Series(_Part):
    """One line of a chart."""

    label: Text
    x: list[float]
    y: list[float]


class Chart(_Part):
    """A line chart; a mark on the x axis is drawn as a vertical line."""

    title: Text
    x: Text
    y: Text
    series: list[Series]
    mark: float | None = None


class Dots(_Part):
    """One row of a strip plot: the value of each case. ``missing`` has no value of its own and counts as ``value``."""

    label: Text
    names: list[Text]
    values: list[float]
    missing: list[bool]


class Strip(_Part):
    """A strip plot from 0 to 1: a dot for each case, a row for each group, and the mean of a row as a line."""

    title: Text
    x: Text
    missing: Text
    rows: list[Dots]


class Picture(_Part):
    """A picture as PNG bytes in base64, and what it shows."""

    caption: Text
    png: str


class Section(_Part):
    """A heading and what stands below it.

    ``colours`` says what the colours in pictures mean; ``wide`` pictures hold several side by side.
    """

    name: str = Field(pattern="^[a-z][a-z-]*$")
    title: Text
    words: list[Text] = []
    tables: list[Table] = []
    strips: list[Strip] = []
    charts: list[Chart] = []
    pictures: list[Picture] = []
    colours: dict[Text, Colour] = {}
    wide: bool = False
    facts: dict[Text, dict[Text, Text | int | float | bool | None]] = {}
    command: Text = ""
    points: list[Text] = []


class Page(_Part):
    """A page and, as JSON, the same numbers; ``data`` holds those that the page only sums up.

    Examples
    --------
    >>> page = Page(title="lesions", badge="trained", sentence="Dice 0.91.")
    >>> Page.from_json(page.to_json()) == page, page.to_html()[:15]
    (True, '<!DOCTYPE html>')
    """

    kind: Literal["page"] = "page"
    schema_version: Literal[1] = 1
    fewer_version: Text = __version__
    created: Text = Field(default_factory=lambda: datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
    title: Text
    badge: Text
    good: bool = True
    sentence: Text
    note: Text = ""
    tiles: list[Tile] = []
    sections: list[Section] = []
    data: dict[str, Any] = {}

    def to_html(self) -> str:
        """One HTML file that loads nothing from elsewhere."""
        from fewer.reports.compression import words
        from fewer.reports.templating import template_environment

        charts = {
            section.name: [
                *(draw_strip(strip, f"{section.name}-s{i}") for i, strip in enumerate(section.strips)),
                *(draw_chart(chart, f"{section.name}-{i}") for i, chart in enumerate(section.charts)),
            ]
            for section in self.sections
        }
        return (
            template_environment()
            .get_template("page.html.j2")
            .render(page=self, version=self.fewer_version, charts=charts, words=words)
        )

    def to_json(self) -> str:
        """Indented JSON."""
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Page:
        """Read :meth:`to_json` back.

        Raises
        ------
        FewerError
            When it is no page of this version.
        """
        parse_json(text, "the page", finite=True)
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            raise FewerError(f"the page is not valid: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def is_page(text: str) -> bool:
    """Whether the text of a ``report.json`` is that of a page, and not of a compression's report.

    Examples
    --------
    >>> is_page('{"kind": "page"}'), is_page('{"verdict": {}}')
    (True, False)
    """
    try:
        values = parse_json(text, "the report")
    except FewerError:
        return False
    return isinstance(values, dict) and values.get("kind") == "page"


def png_text(pixels: np.ndarray) -> str:
    """Colours uint8 (height, width, 3) as PNG in base64.

    Examples
    --------
    >>> png_text(np.zeros((2, 2, 3), np.uint8))[:5]
    'iVBOR'
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_chart(chart: Chart, name: str) -> Plot:
    """Draw a line chart in both widths."""
    keys = [
        Key(series.label, "ours" if i == 0 else SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)], "solid")
        for i, series in enumerate(chart.series)
    ]

    def draw(figure: Figure, is_narrow: bool) -> None:
        axes = panel(figure, 50, 28, 16, 46)
        for key, series in zip(keys, chart.series, strict=True):
            axes.plot(
                series.x,
                series.y,
                color=COLOUR[key.colour],
                linewidth=2.0,
                marker=key.marker if len(series.x) <= 40 else None,
                markersize=5,
                clip_on=False,
            )
        if chart.mark is not None:
            axes.axvline(chart.mark, color=COLOUR["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
        axes.xaxis.set_major_locator(MaxNLocator(5 if is_narrow else 9, integer=True))
        axes.margins(x=0.02)
        name_axes(axes, chart.x, chart.y)

    alt = f"Line chart of {chart.y} against {chart.x}: {_ends(chart.series)}."
    return plot(name, chart.title, alt, draw, wide=(640, 300), narrow=(350, 260), legend=keys if len(keys) > 1 else ())


def _ends(series: Sequence[Series]) -> str:
    told = [f"{one.label} from {one.y[0]:.3g} to {one.y[-1]:.3g}" for one in series if one.y]
    return "; ".join(told) or "no point"


_DOT, _LANES = 8.0, 3
"""Pixels of a dot, and how many lie above and below the middle of a row where cases would cover each other."""
_TIPS = 300
"""Up to so many dots say the name of their case under the pointer."""


def draw_strip(strip: Strip, name: str) -> Plot:
    """Draw a strip plot in both widths."""
    pitch, head, foot = 72, 4, 46
    is_told = sum(len(row.values) for row in strip.rows) <= _TIPS

    def draw(figure: Figure, is_narrow: bool) -> dict[str, str]:
        axes = panel(figure, 12, head, 12, foot)
        wide = axes.get_window_extent().width
        axes.set(xlim=(0, 1), ylim=(len(strip.rows) * pitch, 0))
        axes.set_yticks([])
        axes.grid(True, axis="x", color=COLOUR["grid"], linewidth=0.8)
        tips = {}
        for index, row in enumerate(strip.rows):
            middle = index * pitch + 46
            label = shorten(row.label, int(wide / 7.6))
            axes.text(0, index * pitch + 14, label, color=COLOUR["ink"], fontsize=TEXT, va="baseline")
            for place, (x, lane) in enumerate(zip(row.values, lanes(row.values, _DOT / wide), strict=True)):
                gid, is_missing = f"tip-{index}-{place}", row.missing[place]
                if is_told:
                    told = strip.missing if is_missing else f"{x:.3f}"
                    tips[gid] = f"{row.names[place]}: {told}"
                colour = COLOUR["bad" if is_missing else "ours"]
                y, marker = middle + lane * _DOT * 0.8, "X" if is_missing else "o"
                look = {"marker": marker, "markersize": _DOT - 1, "alpha": 0.75, "markeredgewidth": 0}
                axes.plot([x], [y], linestyle="none", color=colour, clip_on=False, gid=gid, **look)
            if row.values:
                mean = float(np.mean(row.values))
                axes.plot([mean, mean], [middle - 20, middle + 20], color=COLOUR["ink"], linewidth=2, clip_on=False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        name_axes(axes, strip.x)
        return tips

    means = "; ".join(
        f"{row.label} {np.mean(row.values):.3f} over {len(row.values)}" for row in strip.rows if row.values
    )
    keys = [
        Key("one case", "ours", "o"),
        Key(f"one case, {strip.missing}", "bad", "X"),
        Key("mean", "ink", line="solid"),
    ]
    if not any(any(row.missing) for row in strip.rows):
        del keys[1]
    height = head + foot + pitch * len(strip.rows)
    alt = f"Strip plot of {strip.x}, a dot for each case; means: {means or 'none'}."
    return plot(name, strip.title, alt, draw, wide=(640, height), narrow=(350, height), legend=keys)


def lanes(values: Sequence[float], width: float) -> list[int]:
    """Lanes around the middle of a row, so that dots of this width do not cover each other while lanes last.

    Examples
    --------
    >>> lanes([0.5, 0.5, 0.9, 0.5], 0.1)
    [0, 1, 0, -1]
    """
    order = [0, *(side * lane for lane in range(1, _LANES + 1) for side in (1, -1))]
    last: dict[int, float] = {}
    found = [0] * len(values)
    for place in np.argsort(values, kind="stable").tolist():
        x = values[place]
        free = [lane for lane in order if x - last.get(lane, -1e9) >= width]
        found[place] = free[0] if free else min(order, key=lambda lane: last[lane])
        last[found[place]] = x
    return found
