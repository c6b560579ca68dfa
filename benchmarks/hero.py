"""The picture of the README: quality against time of one network, every runtime and ours, from a committed table.

    python benchmarks/hero.py --table benchmarks/results/frontier_zen5.csv --out docs/images/frontier.svg

Means over the seeds of the table, clipped to a feature cosine of 0.94 and above. Nothing is measured here.
``frontier_narrow.svg`` beside it is the same for a phone.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.figure import Figure

GREY, BLUE, ORANGE = "#7d8793", "#2f6fde", "#c2410c"
LOWEST = 0.94
LABELS = {
    ("onnxruntime", "fp32"): (8, 8, "right"),
    ("OpenVINO", "bf16"): (-6, 8, "left"),
    ("OpenVINO", "int8"): (-7, -4, "right"),
}
"""Where the name of a point stands, in points from it, so that none covers another."""
NARROW = {
    ("onnxruntime", "fp32"): (-24, 8, "left"),
    ("OpenVINO", "fp32"): (-24, -15, "left"),
    ("OpenVINO", "bf16"): (-14, 21, "left"),
    ("onnxruntime", "int8 dynamic"): (-14, -27, "center"),
    ("OpenVINO", "int8"): (-7, -5, "right"),
}


def points(table: Path, model: str) -> dict[tuple[str, str], tuple[float, float]]:
    """(method, point): mean times faster than torch eager, mean feature cosine."""
    rows = defaultdict(list)
    lines = (line for line in table.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    for row in csv.DictReader(lines):
        if row["model"] == model and row["times_faster"] and row["quality"]:
            rows[row["method"], row["point"]].append((float(row["times_faster"]), float(row["quality"])))
    return {key: (fmean(t for t, _ in found), fmean(q for _, q in found)) for key, found in rows.items()}


def draw(found: dict[tuple[str, str], tuple[float, float]], out: Path, narrow: bool = False) -> None:
    """One panel that reads on light and dark pages: ours in blue, every other method in grey, points labelled.

    A narrow one is for a phone, on which the text of the wide one would be too small to read.
    """
    style = {"svg.fonttype": "none", "svg.hashsalt": "fewer", "font.family": "sans-serif", "font.size": 10}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.4, 4.4) if narrow else (8.0, 4.2))
        axes = figure.subplots()
        ours = {k: v for k, v in found.items() if k[0].startswith("ours")}
        for (method, point), (times, quality) in found.items():
            if (method, point) in ours or quality < LOWEST:
                continue
            places = LABELS | NARROW if narrow else LABELS
            across, down, side = places.get((method, point), (0, -16, "center"))
            label = f"{method} {point}".replace(" dynamic", "")
            axes.plot(times, quality, "s", color=GREY, markersize=6)
            axes.annotate(label, (times, quality), (across, down), textcoords="offset points", color=GREY, ha=side)
        front, best = [], 0.0
        for times, quality in sorted(ours.values(), reverse=True):
            if quality > best and quality >= LOWEST:
                front.append((times, quality))
                best = quality
        front.sort()
        axes.plot(*zip(*front, strict=True), "o-", color=BLUE, markersize=6, linewidth=2)
        axes.annotate(
            f"fewer {front[-1][0]:.1f}x",
            front[-1],
            (-38 if narrow else -14, -18 if narrow else 9),
            textcoords="offset points",
            color=BLUE,
            fontweight="bold",
        )
        for times, quality in front[:: max(1, len(front) // 3)]:
            axes.annotate(f"{times:.1f}x", (times, quality), (4, 7), textcoords="offset points", color=BLUE)
        axes.set_xlabel("times faster than torch eager" + ("" if narrow else " (batch 1, one thread)"), color=GREY)
        axes.set_ylabel("feature cosine with the dense model", color=GREY)
        axes.set_ylim(LOWEST, 1.012 if narrow else 1.008)
        axes.set_yticks([0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0])
        axes.set_xlim(0, 12.6 if narrow else None)
        axes.tick_params(colors=GREY)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(GREY)
        axes.grid(color=GREY, alpha=0.2)
        figure.tight_layout()
        figure.savefig(out, format=out.suffix[1:], transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=Path(__file__).parent / "results" / "frontier_zen5.csv")
    parser.add_argument("--model", default="fewer/dinov2-small")
    parser.add_argument("--out", type=Path, default=Path("docs/images/frontier.svg"))
    args = parser.parse_args()
    draw(points(args.table, args.model), args.out)
    draw(points(args.table, args.model), args.out.with_stem(f"{args.out.stem}_narrow"), narrow=True)
