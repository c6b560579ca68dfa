"""What the examples share: a figure that looks the same every time, saved where the command line says."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#2f6fde", "#c2410c", "#7d8793"
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "fewer", "font.family": "sans-serif", "font.size": 9}
matplotlib.rcParams.update(STYLE)


def panels(columns: int, rows: int = 1, width: float = 7.0, height: float = 2.6) -> tuple[Figure, list[Any]]:
    """A figure, and its panels in reading order."""
    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def pictures(shown: dict[str, Any], columns: int, rows: int = 1, width: float = 7.0, height: float = 2.6) -> Figure:
    """Images side by side, each with its name."""
    figure, axes = panels(columns, rows, width, height)
    for panel, (name, image) in zip(axes, shown.items(), strict=False):
        panel.imshow(image, cmap="gray", interpolation="nearest")
        panel.set_title(name, fontsize=8)
    for panel in axes:
        panel.set_axis_off()
    return figure


def keep(figure: Figure, script: str, form: str = "svg") -> Path:
    """Save under the name of the example, into the folder that was given, and say where."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 and Path(sys.argv[1]).is_dir() else Path(tempfile.mkdtemp())
    path = folder / f"{Path(script).stem}.{form}"
    figure.tight_layout()
    figure.savefig(path, dpi=110, **({"metadata": {"Date": None}} if form == "svg" else {}))
    print(f"picture  {path}")
    return path
