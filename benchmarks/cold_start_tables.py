"""The tables of docs/select.md as Markdown, from results/cold_start_summary.csv.

python benchmarks/cold_start_tables.py
"""

from __future__ import annotations

import csv
from pathlib import Path

SUMMARY = Path(__file__).parent / "results" / "cold_start_summary.csv"
BUDGETS = ("10", "20", "50", "100", "area")
METHODS = ("random", "coverage", "typiclust", "kcenter", "probcover", "saal", "saal-corrected", "foreground-random")
TITLES = {
    ("elpv", "dinov2-small"): "elpv, DINOv2-small (accuracy)",
    ("elpv", "mobilenet-v2"): "elpv, MobileNetV2 (accuracy)",
    ("lesions", "dinov2-small"): "simulated lesions, DINOv2-small (mean Dice)",
    ("mnist", "mobilenet-v2"): "MNIST, MobileNetV2 (accuracy)",
    ("lesions", "trained U-Net"): "simulated lesions, trained U-Net (mean Dice)",
}
NAMES = {"typiclust": "TypiClust", "kcenter": "k-centre", "probcover": "ProbCover"}
Cells = dict[tuple[str, ...], dict[str, str]]


def number(row: dict[str, str], value: str = "gain") -> str:
    """A difference in points with its interval."""
    return f"{100 * float(row[value]):+.1f} ± {100 * float(row[f'{value}_interval']):.1f}"


def gains(cells: Cells, pool: tuple[str, str], among: str, methods: tuple[str, ...]) -> list[str]:
    """Gain over random of one pool; the number of seeds stands beside a gain where it is not that of the column."""
    mine = {budget: cells.get((*pool, "coverage", budget, among)) for budget in BUDGETS}
    usual = {budget: cell["seeds"] for budget, cell in mine.items() if cell}
    same = len(set(usual.values())) == 1
    title = TITLES[pool] + (", blind seeds" if among == "blind" else "") + (f", {usual['10']} seeds" if same else "")
    budgets = [b for b in BUDGETS if b in usual]
    heads = [b if same else f"{b} ({usual[b]} seeds)" for b in budgets]
    lines = [f"| {title} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for method in methods:
        row, known = [], False
        for budget in budgets:
            cell = cells.get((*pool, method, budget, among))
            known |= cell is not None
            if cell is None:
                row.append("-")
            elif method == "random":
                row.append(f"{100 * float(cell['score']):.1f}")
            else:
                text = number(cell) + (f" ({cell['seeds']})" if cell["seeds"] != usual[budget] else "")
                row.append(f"**{text}**" if float(cell["gain"]) > float(cell["gain_interval"]) else text)
        if known:
            lines.append(f"| `{method}`{', %' if method == 'random' else ''} | " + " | ".join(row) + " |")
    return lines


def beside_best(cells: Cells) -> list[str]:
    """``coverage`` minus the best of its rivals."""
    lines = [
        "| `coverage` minus the best of TypiClust, ProbCover and k-centre | " + " | ".join(BUDGETS[:3]) + " |",
        "|---" * 4 + "|",
    ]
    for pool, title in TITLES.items():
        for among in ("all", "blind"):
            found = [cells.get((*pool, "coverage", budget, among)) for budget in BUDGETS[:3]]
            if any(found):
                texts = [f"{number(r, 'over_rival')} ({NAMES[r['best_rival']]})" if r else "-" for r in found]
                lines.append(f"| {title}{', blind seeds' if among == 'blind' else ''} | " + " | ".join(texts) + " |")
    return lines


def second_rounds(cells: Cells) -> list[str]:
    """Scores of two rounds, and what uncertainty adds to them."""
    budgets = [b for b in BUDGETS[:4] if any(k[2].endswith("rounds") and k[3] == b for k in cells)]
    lines = ["| two rounds | " + " | ".join(budgets) + " |", "|---" * (len(budgets) + 1) + "|"]
    for pool, title in TITLES.items():
        for method in sorted({k[2] for k in cells if k[:2] == pool and k[2].endswith("rounds")}):
            row = [cells.get((*pool, method, b, "all")) for b in budgets]
            lines.append(
                f"| {title}: `{method}` | "
                + " | ".join(f"{number(r)} ({r['seeds']})" if r else "-" for r in row)
                + " |"
            )
    return lines


def main() -> None:
    """Print all tables."""
    with SUMMARY.open() as file:
        rows = list(csv.DictReader(file))
    cells = {(r["pool"], r["features"], r["method"], r["budget"], r["set"]): r for r in rows}
    for pool in TITLES:
        print(*gains(cells, pool, "all", METHODS), "", sep="\n")
    for pool in {(r["pool"], r["features"]) for r in rows if r["set"] == "blind"}:
        print(*gains(cells, pool, "blind", METHODS[:5]), "", sep="\n")
    print(*beside_best(cells), "", sep="\n")
    print(*second_rounds(cells), sep="\n")


if __name__ == "__main__":
    main()
