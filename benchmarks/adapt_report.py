"""Tables and plot of ``benchmarks/adapt.py``: Dice per method, the share of the gap that it closes, classes.

The gap lies between source-only and target-oracle of the same seed, and of the same steps where these were run. Seeds
are averaged; with one seed the interval is that over subjects, with several it is the smallest and the largest seed.

    PYTHONPATH=src python benchmarks/adapt_report.py            # tables to the terminal, plot to results/adapt.svg
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
from tables import read

RESULTS = Path(__file__).parent / "results"
BENCHMARKS = ("simulated", "flair", "nuclei")


def summary(rows: list[dict[str, Any]], benchmark: str) -> list[dict[str, Any]]:
    """A row per method with all modules on and all labels, the best first."""
    mine = [r for r in rows if r["benchmark"] == benchmark and not r["without"] and r["labels"] == "all"]
    by: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in mine:
        by.setdefault((row["method"], row["steps"]), {})[row["seed"]] = row
    found = []
    for (method, steps), seeds in by.items():
        low, high = (by.get((end, steps)) or _any(by, end) for end in ("source-only", "target-oracle"))
        dices = {seed: float(row["dice"]) for seed, row in seeds.items()}
        shares = [
            (dices[s] - float(low[s]["dice"])) / (float(high[s]["dice"]) - float(low[s]["dice"]))
            for s in dices
            if s in low and s in high
        ]
        one = next(iter(seeds.values()))
        ends = (
            (float(one["low"]), float(one["high"])) if len(dices) == 1 else (min(dices.values()), max(dices.values()))
        )
        classes: dict[str, list[float]] = {}
        for row in seeds.values():
            for part in row["per_class"].split(";"):
                name, value = part.rsplit(" ", 1)
                classes.setdefault(name, []).append(float(value))
        found.append(
            {
                "method": method, "steps": steps, "seeds": len(dices),
                "dice": float(np.mean(list(dices.values()))), "ends": ends,
                "share": float(np.mean(shares)) if shares else None,
                "classes": {name: float(np.mean(values)) for name, values in classes.items()},
                "missed": float(np.mean([int(r["missed"]) for r in seeds.values()])),
                "spurious": float(np.mean([int(r["spurious"]) for r in seeds.values()])),
                "assd": float(np.mean([float(r["assd"] or "nan") for r in seeds.values()])), "unit": one["unit"],
                "seconds": float(np.mean([int(r["cpu_seconds"]) for r in seeds.values()])),
            }
        )  # fmt: skip
    return sorted(found, key=lambda row: -row["dice"])


def _any(by: dict[tuple[str, str], dict[str, Any]], method: str) -> dict[str, Any]:
    return next((seeds for (name, _), seeds in by.items() if name == method), {})


def markdown(found: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    names = list(found[0]["classes"])
    many = len(names) > 1
    head = ["method", "steps", "seeds", "Dice", "interval", "gap closed", *(names if many else [])]
    head += ["missed", "spurious", f"ASSD, {found[0]['unit']}", "CPU s"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in found:
        share = "" if row["share"] is None else f"{row['share']:.0%}"
        cells = [
            row["method"],
            row["steps"],
            str(row["seeds"]),
            f"{row['dice']:.3f}",
            "{:.3f} to {:.3f}".format(*row["ends"]),
            share,
        ]
        cells += [f"{row['classes'].get(name, 0):.2f}" for name in names] if many else []
        cells += [f"{row[key]:.{digits}f}" for key, digits in (("missed", 0), ("spurious", 0), ("assd", 2))]
        lines.append(f"| {' | '.join([*cells, format(row['seconds'], '.0f')])} |")
    return "\n".join(lines)


def ablations(rows: list[dict[str, Any]]) -> str:
    """Rows with modules off, beside the same method and seed with all of them on."""
    full = {(r["benchmark"], r["method"], r["seed"]): r for r in rows if not r["without"] and r["labels"] == "all"}
    lines = ["| benchmark | method | without | seed | Dice | with all | difference |", f"|{'---|' * 7}"]
    for row in rows:
        base = full.get((row["benchmark"], row["method"], row["seed"]))
        if row["without"] and row["labels"] == "all" and base is not None:
            one, two = float(row["dice"]), float(base["dice"])
            cells = [row["benchmark"], row["method"], row["without"].replace("+", ", "), row["seed"]]
            lines.append(f"| {' | '.join(cells)} | {one:.3f} | {two:.3f} | {one - two:+.3f} |")
    return "\n".join(lines)


def few_labels(rows: list[dict[str, Any]]) -> str:
    """Rows with few labelled source scans."""
    lines = ["| benchmark | method | labelled scans | seed | Dice | interval over subjects |", f"|{'---|' * 6}"]
    for row in rows:
        if row["labels"] != "all":
            cells = [row[key] for key in ("benchmark", "method", "labels", "seed", "dice")]
            lines.append(f"| {' | '.join(cells)} | {row['low']} to {row['high']} |")
    return "\n".join(lines)


def draw(tables: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Dice of every method, a panel per benchmark."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    most = max(len(found) for found in tables.values())
    figure = Figure(figsize=(5 * len(tables), 1 + 0.32 * most), layout="constrained")
    for axes, (name, found) in zip(np.atleast_1d(figure.subplots(1, len(tables))), tables.items(), strict=True):
        middle = [row["dice"] for row in found]
        ends = np.array([row["ends"] for row in found]).T
        error = np.abs(ends - middle)
        colours = {"ours": "C1", "source-only": "grey", "target-oracle": "black"}
        for place, row in enumerate(found):
            colour = colours.get(row["method"], "C0")
            axes.errorbar(middle[place], place, xerr=error[:, place : place + 1], fmt="o", color=colour)
        axes.set_yticks(range(len(found)), [f"{row['method']}, {row['steps']}" for row in found])
        axes.invert_yaxis()
        axes.set_xlabel("Dice, pooled, mean over classes")
        axes.set_title(f"{name} (method, steps)")
        axes.grid(alpha=0.3)
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    path.write_text(text.getvalue(), "utf-8")


def main() -> None:
    """Print tables, write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=RESULTS / "adapt.csv")
    args = parser.parse_args()
    rows = read(args.table)
    tables = {name: found for name in BENCHMARKS if (found := summary(rows, name))}
    for name, found in tables.items():
        print(f"\n{name}\n\n{markdown(found)}")
    print("\n" + ablations(rows), "\n" + few_labels(rows), sep="\n")
    draw(tables, args.table.with_suffix(".svg"))


if __name__ == "__main__":
    main()
