"""Pictures of walks: strips of silhouettes, and heat maps of views."""

from __future__ import annotations

import numpy as np

from fewer.reports.page import Picture, png_text
from fewer.tasks.gait.protocols.scores import ViewTable

__all__ = ["heat_map", "strip"]


def strip(frames: np.ndarray, count: int = 10) -> np.ndarray:
    """Some silhouettes beside each other, colours uint8 (64, 44 count, 3).

    Examples
    --------
    >>> strip(np.zeros((30, 64, 64), np.uint8), 4).shape
    (64, 176, 3)
    """
    some = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)][:, :, 10:54]
    return np.repeat(np.concatenate(list(some), 1)[:, :, None], 3, 2)


def heat_map(table: ViewTable) -> Picture:
    """Rank-1 by probe view and gallery view as a picture; the identical view is grey."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = table.values.shape
    figure = Figure(figsize=(1.6 + 0.42 * columns, 1.2 + 0.36 * rows), dpi=110)
    axes = figure.add_axes((0.16, 0.16, 0.82, 0.74))
    values = 100 * table.values.copy()
    for i, probe in enumerate(table.probe_views):
        for j, gallery in enumerate(table.gallery_views):
            if probe == gallery:
                values[i, j] = np.nan
    axes.set_facecolor("#c8c8c8")
    axes.imshow(np.ma.masked_invalid(values), vmin=0, vmax=100, cmap="viridis", aspect="auto")
    for i in range(rows):
        for j in range(columns):
            if np.isfinite(values[i, j]):
                colour = "black" if values[i, j] > 60 else "white"
                axes.text(j, i, f"{values[i, j]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    # names are text: a dollar sign in one is no formula
    axes.set_xticks(range(columns), table.gallery_views, fontsize=7, parse_math=False)
    axes.set_yticks(range(rows), table.probe_views, fontsize=7, parse_math=False)
    axes.set_xlabel("gallery view", fontsize=8)
    axes.set_ylabel("probe view", fontsize=8)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    return Picture(
        caption=f"Rank-1 (percent) of {table.condition.upper()} by views; the identical view is left out.",
        png=png_text(np.ascontiguousarray(pixels)),
    )
