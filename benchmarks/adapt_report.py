"""Tables and plot of ``benchmarks/adapt.py``: Dice per method, the share of the gap that it closes, classes.

The gap lies between source-only and target-oracle of the same seeds and steps. Intervals are of 95 % and come from 2000
draws of seeds and of test subjects together, the same draws for all methods; with one seed they are over subjects
alone. A last table says how well numbers that need no target label rank the networks.

    PYTHONPATH=src python benchmarks/adapt_report.py            # tables to the terminal, plot to results/adapt.svg
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
from adapt import SIGNS
from tables import read

RESULTS = Path(__file__).parent / "results"
BENCHMARKS = (
    "simulated", "flair", "scanner", "nuclei", "simulated-back", "flair-back", "scanner-back", "nuclei-back", "same",
    "hippocampus", "flair3d",
)  # fmt: skip
DRAWS = 2000
MEMBER = "ours: "
"""Before the name of a network that the default method trained, and may have kept."""

Rows = list[dict[str, Any]]


def counts_of(row: dict[str, Any]) -> np.ndarray:
    """``2 TP`` and ``FP + FN`` of each test subject and class: ``(subjects, classes, 2)``."""
    return np.array([[cell.split("/") for cell in one.split()] for one in row["counts"].split(";")], dtype=float)


def dice(counts: np.ndarray) -> np.ndarray:
    """Dice of all voxels of the subjects together, mean over classes; draws may stand before the subjects."""
    both, wrong = np.moveaxis(counts.sum(-3), -1, 0)
    return (both / np.maximum(both + wrong, 1)).mean(-1)


def drawn(seeds: dict[str, dict[str, Any]], chosen: list[str]) -> np.ndarray:
    """Dice under draws of subjects and, where there are several, of seeds: ``(draws,)``."""
    rng = np.random.default_rng(0)
    number = len(counts_of(seeds[chosen[0]]))
    subjects = rng.integers(number, size=(DRAWS, number))
    values = np.array([dice(counts_of(seeds[seed])[subjects]) for seed in chosen])
    return np.take_along_axis(values, rng.integers(len(chosen), size=(len(chosen), DRAWS)), 0).mean(0)


def ends_of(values: np.ndarray) -> tuple[float, float]:
    """A 95 % interval."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def summary(rows: Rows, benchmark: str) -> list[dict[str, Any]]:
    """A row per method with all modules on and all labels, the best first."""
    mine = [r for r in rows if r["benchmark"] == benchmark and not r["without"] and r["labels"] == "all"]
    mine = [r for r in mine if not r["method"].startswith(MEMBER)]
    by: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in mine:
        by.setdefault((row["method"], row["steps"]), {})[row["seed"]] = row
    found = []
    for (method, steps), seeds in by.items():
        low, high = by.get(("source-only", steps), {}), by.get(("target-oracle", steps), {})
        common = [seed for seed in seeds if seed in low and seed in high]
        share, share_ends = None, None
        if common and method not in ("source-only", "target-oracle"):
            mean = {
                k: np.mean([float(v[s]["dice"]) for s in common]) for k, v in (("m", seeds), ("l", low), ("h", high))
            }
            share = float((mean["m"] - mean["l"]) / (mean["h"] - mean["l"]))
            own, worst, best = (drawn(one, common) for one in (seeds, low, high))
            share_ends = ends_of((own - worst) / np.maximum(best - worst, 1e-6))
        one = next(iter(seeds.values()))
        classes: dict[str, list[float]] = {}
        for row in seeds.values():
            for part in row["per_class"].split(";"):
                name, value = part.rsplit(" ", 1)
                classes.setdefault(name, []).append(float(value))
        found.append(
            {
                "method": method, "steps": steps, "seeds": len(seeds),
                "dice": float(np.mean([float(row["dice"]) for row in seeds.values()])),
                "ends": ends_of(drawn(seeds, list(seeds))), "share": share, "share_ends": share_ends,
                "classes": {name: float(np.mean(values)) for name, values in classes.items()},
                "missed": float(np.mean([int(r["missed"]) for r in seeds.values()])),
                "spurious": float(np.mean([int(r["spurious"]) for r in seeds.values()])),
                "assd": float(np.mean([float(r["assd"] or "nan") for r in seeds.values()])), "unit": one["unit"],
                "seconds": float(np.mean([int(r["cpu_seconds"]) for r in seeds.values()])),
            }
        )  # fmt: skip
    return sorted(found, key=lambda row: -row["dice"])


def ranks(rows: Rows, benchmark: str) -> str:
    """Rank correlation of what needs no target label with the Dice on the target, and what it would have picked."""
    mine = [r for r in rows if r["benchmark"] == benchmark and r["labels"] == "all" and r["held"]]
    if len(mine) < 5:
        return ""
    truth = np.array([float(r["dice"]) for r in mine])
    known = [name for name in SIGNS if all(r[name] for r in mine)]
    values = {name: np.array([float(r[name]) for r in mine]) for name in known}
    values["choice = sqrt(held curve)"] = np.sqrt(values["held"] * values["curve"])
    values["sqrt(mirror size)"] = np.sqrt(values["mirror"] * values["size"])
    values["trust = cbrt(mirror size held)"] = np.cbrt(values["mirror"] * values["size"] * values["held"])
    lines = [
        "| without a target label | rank correlation with Dice | Dice of its pick, mean over seeds |",
        "|---|---|---|",
    ]
    seeds = sorted({r["seed"] for r in mine})

    def picked(sign: np.ndarray) -> float:
        places = [[i for i, r in enumerate(mine) if r["seed"] == seed] for seed in seeds]
        return float(np.mean([truth[max(place, key=lambda i: sign[i])] for place in places]))

    for name, sign in values.items():
        lines.append(f"| {name} | {_spearman(sign, truth):+.2f} | {picked(sign):.3f} |")
    lines.append(f"| (the best that was there) | | {picked(truth):.3f} |")
    return f"{len(mine)} networks\n\n" + "\n".join(lines)


def choices(rows: Rows) -> str:
    """What the default chose among, run by run: trust and Dice of each network, and what a better choice gains."""
    runs: dict[tuple[str, ...], dict[str, tuple[float, float]]] = {}
    for row in rows:
        if row["method"].startswith(MEMBER) and not row["without"] and row["labels"] == "all":
            key = (row["benchmark"], row["steps"], row["seed"])
            trust = float(np.cbrt(float(row["mirror"]) * float(row["size"]) * float(row["held"])))
            runs.setdefault(key, {})[row["method"].removeprefix(MEMBER)] = (trust, float(row["dice"]))
    names = list(dict.fromkeys(name for found in runs.values() for name in found))
    ends = {(r["benchmark"], r["steps"], r["seed"]): float(r["dice"]) for r in rows if r["method"] == "ours"}
    head = [
        "benchmark",
        "steps",
        "seed",
        *(f"{name}: trust (Dice)" for name in names),
        "highest trust",
        "best - that",
        "at the end",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for key, found in runs.items():
        kept = max(found, key=lambda name: found[name][0])
        cells = ["{:.2f} ({:.3f})".format(*found[name]) if name in found else "" for name in names]
        best = max(dice for _, dice in found.values())
        cells += [kept, f"{best - found[kept][1]:.3f}", f"{ends[key]:.3f}" if key in ends else ""]
        lines.append(f"| {' | '.join([*key, *cells])} |")
    return "\n".join(lines)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    order = [np.argsort(np.argsort(x)).astype(float) for x in (a, b)]
    return float(np.corrcoef(*order)[0, 1])


def markdown(found: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    names = list(found[0]["classes"])
    many = len(names) > 1
    head = ["method", "steps", "seeds", "Dice", "interval", "gap closed", "interval", *(names if many else [])]
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
            "" if row["share_ends"] is None else "{:.0%} to {:.0%}".format(*row["share_ends"]),
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
        print("\n" + ranks(rows, name))
    print("\n" + choices(rows))
    print("\n" + ablations(rows), "\n" + few_labels(rows), sep="\n")
    draw(tables, args.table.with_suffix(".svg"))


if __name__ == "__main__":
    main()
